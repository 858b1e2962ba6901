"""Clients as applications have them: a driver of each database, told where to connect and what to verify.

driver.py once  {...}   one connection and one question; prints the answer
driver.py write {...}   the same, and writes the row "text"
driver.py read  {...}   prints the rows that were written, a line each
driver.py load  {...}   until standard input ends: a new connection every `interval` seconds, and one that is kept busy;
                        then prints what happened as JSON

The argument: engine, host (the name to verify), address, port, ca (a file), verify (full, ca, none, or plain: no TLS
at all), password; perhaps user, and shows: a folder with client.crt, client.key and client.pem.
"""

import json
import os
import socket
import ssl
import sys
import threading
import time


def context(to):
    """What the driver is given for TLS; None without."""
    if to["verify"] == "plain":
        return None
    made = ssl.create_default_context(cafile=to["ca"]) if to.get("ca") else ssl.create_default_context()
    made.check_hostname = to["verify"] == "full"
    made.verify_mode = ssl.CERT_NONE if to["verify"] == "none" else ssl.CERT_REQUIRED
    if to.get("shows"):
        made.load_cert_chain(shown(to, "client.crt"), shown(to, "client.key"))
    return made


def shown(to, name):
    """A file of the client's certificate; None if it has none."""
    return os.path.join(to["shows"], name) if to.get("shows") else None


class Postgres:
    def __init__(self, to):
        import psycopg2

        modes = {"full": "verify-full", "ca": "verify-ca", "none": "require", "plain": "disable"}
        # Not the files of whoever runs this.
        certificate = {
            "sslcert": shown(to, "client.crt") or "/nonexistent/client.crt",
            "sslkey": shown(to, "client.key") or "/nonexistent/client.key",
        }
        self.connection = psycopg2.connect(
            host=to["host"], hostaddr=to["address"], port=to["port"], user=to.get("user") or "postgres",
            dbname="postgres", password=to["password"], sslmode=modes[to["verify"]],
            sslrootcert=to.get("ca") or "/nonexistent", connect_timeout=10, **certificate,
        )
        self.connection.autocommit = True

    def ask(self, sql="select 1"):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return [str(row[0]) for row in cursor.fetchall()] if cursor.description else []

    def write(self, text):
        self.ask("create table if not exists kept (line text)")
        self.ask(f"insert into kept values ('{text}')")

    def read(self):
        return self.ask("select line from kept order by line")

    def close(self):
        self.connection.close()


class Mysql:
    def __init__(self, to):
        import pymysql

        tls = context(to)
        self.connection = pymysql.connect(
            host=to["host"], port=to["port"], user=to.get("user") or "root", password=to["password"], ssl=tls,
            ssl_disabled=tls is None, connect_timeout=10, autocommit=True,
        )

    def ask(self, sql="select 1"):
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return [str(row[0]) for row in cursor.fetchall()]

    def write(self, text):
        self.ask("create database if not exists kept")
        self.ask("create table if not exists kept.kept (line varchar(100))")
        self.ask(f"insert into kept.kept values ('{text}')")

    def read(self):
        return self.ask("select line from kept.kept order by line")

    def close(self):
        self.connection.close()


class Redis:
    def __init__(self, to):
        import redis

        tls = {}
        if to["verify"] != "plain":
            tls = {
                "connection_class": redis.SSLConnection,
                "ssl_cert_reqs": "none" if to["verify"] == "none" else "required",
                "ssl_check_hostname": to["verify"] == "full",
                "ssl_ca_certs": to.get("ca"),
                "ssl_certfile": shown(to, "client.crt"),
                "ssl_keyfile": shown(to, "client.key"),
            }
        pool = redis.ConnectionPool(
            host=to["host"], port=to["port"], password=to["password"] or None, socket_timeout=10, decode_responses=True,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0), **tls
        )
        self.client = redis.Redis(connection_pool=pool, single_connection_client=True)

    def ask(self):
        return [str(self.client.ping())]

    def write(self, text):
        self.client.rpush("kept", text)

    def read(self):
        return self.client.lrange("kept", 0, -1)

    def close(self):
        self.client.close()
        self.client.connection_pool.disconnect()


class Mongodb:
    def __init__(self, to):
        import pymongo

        tls = {}
        if to["verify"] != "plain":
            tls = {
                "tls": True,
                "tlsCAFile": to.get("ca"),
                **({"tlsCertificateKeyFile": shown(to, "client.pem")} if to.get("shows") else {}),
                "tlsAllowInvalidCertificates": to["verify"] == "none",
                # With the former option alone this one must not be said.
                **({} if to["verify"] == "none" else {"tlsAllowInvalidHostnames": to["verify"] == "ca"}),
            }
        self.client = pymongo.MongoClient(
            to["host"], to["port"], directConnection=True, serverSelectionTimeoutMS=5000, retryReads=False, **tls
        )
        self.ask()

    def ask(self):
        return [str(self.client.admin.command("ping")["ok"])]

    def write(self, text):
        self.client.kept.kept.insert_one({"line": text})

    def read(self):
        return sorted(document["line"] for document in self.client.kept.kept.find({}))

    def close(self):
        self.client.close()


ENGINES = {"postgres": Postgres, "mysql": Mysql, "mariadb": Mysql, "redis": Redis, "mongodb": Mongodb}


def name_leads_to(name, address):
    """The container's name as its network knows it; the machine that runs the test does not."""
    ask = socket.getaddrinfo
    socket.getaddrinfo = lambda host, *rest, **more: ask(address if host == name else host, *rest, **more)


def load(connect, interval):
    over, opened, queries, failed, dropped = threading.Event(), [0], [0], [], []

    def open_and_close():
        # However late it began, it has been seen at work.
        while not over.wait(interval) or opened[0] + len(failed) < 20:
            began = time.time()
            try:
                client = connect()
                client.ask()
                client.close()
                opened[0] += 1
            except Exception as error:  # whatever a driver raises is what an application sees
                failed.append(f"{began:.3f} {type(error).__name__}: {error}")

    def keep_busy():
        try:
            client = connect()
            while not over.wait(interval / 10):
                client.ask()
                queries[0] += 1
            client.close()
        except Exception as error:
            dropped.append(f"{time.time():.3f} {type(error).__name__}: {error}")

    threads = [threading.Thread(target=work) for work in (open_and_close, keep_busy)]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"opened": opened[0], "queries": queries[0], "failed": failed, "dropped": dropped}))


def main():
    verb, to = sys.argv[1], json.loads(sys.argv[2])
    name_leads_to(to["host"], to["address"])
    os.environ.pop("SSL_CERT_FILE", None)

    def connect():
        return ENGINES[to["engine"]](to)

    if verb == "load":
        return load(connect, float(to["interval"]))
    client = connect()
    if verb == "write":
        client.write(to["text"])
    else:
        print("\n".join(client.read() if verb == "read" else client.ask()))
    client.close()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        if os.environ.get("DRIVER_TRACE"):
            raise
        sys.exit(f"{type(error).__name__}: {error}")
