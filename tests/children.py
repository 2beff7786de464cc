"""What a command of the tests' project starts: threads and child processes that say whose tenant they find."""

import json
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def who(*ignored):
    """The bound tenant and its database, of a process that may have to set Django up first."""
    import django

    django.setup()
    from django.db import connection

    from tenant_router import context

    database = os.path.basename(connection.settings_dict["NAME"])
    return [context.current().id, database]


def _tell(answers):
    answers.put(who())


def start_all():
    """What each kind finds, as JSON: nobody of them was handed the tenant but the executors' jobs."""
    found = {"command": who()}
    thread = threading.Thread(target=lambda: found.update(thread=who()))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        found["executor"] = pool.submit(who).result()
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        answers = context.SimpleQueue()
        child = context.Process(target=_tell, args=(answers,))
        child.start()
        child.join(60)
        found[method] = answers.get()
        if method != "forkserver":
            with ProcessPoolExecutor(1, context) as pool:
                found[f"{method} pool"] = pool.submit(who).result(60)
    print(json.dumps(found))
