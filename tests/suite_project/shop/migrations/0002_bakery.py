from django.db import migrations


def create(apps, schema_editor):
    if schema_editor.connection.alias.endswith("documents"):
        return
    apps.get_model("shop", "Category").objects.using(schema_editor.connection.alias).create(name="bakery")


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunPython(create, migrations.RunPython.noop, hints={"model_name": "category"})]
