import asyncio
from urllib.request import Request, urlopen

from asgiref.sync import async_to_sync, sync_to_async
from django.contrib.auth.models import User
from django.contrib.sites.models import Site
from django.contrib.sites.shortcuts import get_current_site
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.core.cache import cache
from django.db import connection, transaction
from django.test import (
    AsyncClient,
    AsyncRequestFactory,
    Client,
    LiveServerTestCase,
    RequestFactory,
    TestCase,
    TransactionTestCase,
    override_settings,
)
from shop import views
from shop.models import Note, Product


class Clients(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.user = User.objects.create_superuser("ada", password="lovelace")
        Product.objects.create(name="bread")

    def test_hosts(self):
        for host in ("testserver", "localhost", "shop.example.com", "127.0.0.1:8000"):
            with self.subTest(host), override_settings(ALLOWED_HOSTS=["*"]):
                response = self.client.get("/host/", HTTP_HOST=host)
                self.assertEqual((response.status_code, response.content.decode()), (200, host))
                self.assertEqual(self.client.get("/products/", headers={"host": host}).json(), {"products": ["bread"]})

    def test_bad_host(self):
        with self.assertLogs("django.security", "ERROR"):
            self.assertEqual(Client(SERVER_NAME="not allowed").get("/host/").status_code, 400)

    @override_settings(ALLOWED_HOSTS=["shop.example.com"])
    def test_disallowed_host(self):
        with self.assertLogs("django.security", "ERROR"):
            self.assertEqual(self.client.get("/host/", HTTP_HOST="other.example.com").status_code, 400)

    def test_session(self):
        self.assertTrue(self.client.login(username="ada", password="lovelace"))
        self.assertEqual(self.client.get("/count/").content, b"1 True")
        session = self.client.session
        session["count"] = 41
        session.save()
        self.assertEqual(self.client.get("/count/").content, b"42 True")
        self.client.logout()
        self.assertEqual(self.client.get("/count/").content, b"1 False")

    def test_session_engines(self):
        for engine in ("db", "cache", "cached_db", "signed_cookies"):
            with self.subTest(engine), self.settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
                client = Client()
                client.force_login(self.user)
                self.assertEqual([client.get("/count/").content for _ in range(2)], [b"1 True", b"2 True"])

    def test_admin(self):
        self.client.force_login(self.user)
        self.assertContains(self.client.get("/admin/shop/product/"), "bread")
        answer = self.client.post("/admin/shop/category/add/", {"name": "new"}, follow=True)
        self.assertContains(answer, "was added successfully")

    def test_numbers_of_queries(self):
        with self.assertNumQueries(1):
            self.client.get("/products/")

    def test_streaming(self):
        self.assertEqual(self.client.get("/stream/").getvalue(), b"bread\n")

    def test_cached_page(self):
        cache.clear()
        with self.assertNumQueries(1):
            self.client.get("/cached/")
            self.client.get("/cached/")

    def test_csrf(self):
        self.assertEqual(Client(enforce_csrf_checks=True).post("/notes/").status_code, 403)

    def test_factory(self):
        self.assertEqual(views.products(RequestFactory().get("/")).status_code, 200)
        self.assertEqual(get_current_site(RequestFactory().get("/")), Site.objects.get())

    def test_error(self):
        with self.assertRaises(KeyError):
            self.client.post("/products/")
        with self.assertLogs("django.request", "ERROR"):
            self.assertEqual(Client(raise_request_exception=False).post("/products/").status_code, 500)

    def test_in_transaction(self):
        with transaction.atomic():
            self.client.post("/products/", {"name": "milk"})
            transaction.set_rollback(True)
        self.assertEqual(Product.objects.count(), 1)

    async def test_async(self):
        answer = await self.async_client.get("/products/async/")
        self.assertEqual(answer.json(), {"products": ["bread"]})
        self.assertEqual((await AsyncClient().get("/products/")).json(), {"products": ["bread"]})
        await self.async_client.aforce_login(self.user)
        self.assertEqual((await self.async_client.get("/count/")).content, b"1 True")

    async def test_async_orm(self):
        await Note.objects.acreate(text="x")
        self.assertEqual([note.text async for note in Note.objects.all()], ["x"])
        self.assertEqual(await sync_to_async(Note.objects.count)(), 1)
        answers = await asyncio.gather(*(self.async_client.get("/products/") for _ in range(3)))
        self.assertEqual({answer.status_code for answer in answers}, {200})

    async def test_async_factory(self):
        request = AsyncRequestFactory().get("/")
        self.assertEqual((await views.products_async(request)).status_code, 200)

    def test_async_to_sync(self):
        async def count():
            return await Product.objects.acount()

        self.assertEqual(async_to_sync(count)(), 1)


class AsyncTransactions(TransactionTestCase):
    serialized_rollback = True

    async def test_written(self):
        await Note.objects.acreate(text="x")
        self.assertEqual((await self.async_client.get("/notes/")).json(), {"notes": ["x"]})


class Live(LiveServerTestCase):
    serialized_rollback = True

    def test_written_here_read_there(self):
        Product.objects.create(name="bread")
        self.assertEqual(urlopen(f"{self.live_server_url}/products/").read(), b'{"products": ["bread"]}')

    def test_written_there_read_here(self):
        urlopen(f"{self.live_server_url}/products/", data=b"name=milk").close()
        self.assertEqual(Product.objects.get().name, "milk")

    def test_any_host(self):
        with override_settings(ALLOWED_HOSTS=["*"]):
            request = Request(f"{self.live_server_url}/host/", headers={"Host": "shop.example.com"})
            self.assertEqual(urlopen(request).read(), b"shop.example.com")

    def test_connection_is_kept(self):
        urlopen(f"{self.live_server_url}/products/").close()
        self.assertEqual(Note.objects.count(), 0)
        self.assertIsNotNone(connection.connection)


class StaticLive(StaticLiveServerTestCase):
    serialized_rollback = True

    def test_static(self):
        self.assertEqual(urlopen(f"{self.live_server_url}/static/admin/css/base.css").status, 200)
