"""What MongoEngine's tests ask of a package ``tests``, which its source distribution lacks."""
