"""Connects with a string just as `dbssl url --driver python` prints it, and says `t` if the connection is encrypted.

url.py ENGINE STRING
"""

import sys


def postgres(url):
    import psycopg2

    cursor = psycopg2.connect(url).cursor()
    cursor.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
    return cursor.fetchone()[0]


def sql(url, status):
    import sqlalchemy

    ask = f"select variable_value from {status} where variable_name = 'Ssl_cipher'"
    return sqlalchemy.create_engine(url).connect().exec_driver_sql(ask).scalar() != ""


def mysql(url):
    return sql(url, "performance_schema.session_status")


def mariadb(url):
    return sql(url, "information_schema.session_status")


def redis(url):
    import redis

    # The port that was connected to, as the server has it: this one takes TLS only.
    return redis.Redis.from_url(url).client_info()["laddr"].endswith(":6380")


def mongodb(url):
    import pymongo

    # The server does not tell; but this one refuses plaintext.
    client = pymongo.MongoClient(url, serverSelectionTimeoutMS=10000)
    return client.get_default_database().command("ping")["ok"] == 1


if __name__ == "__main__":
    try:
        print("t" if globals()[sys.argv[1]](sys.argv[2]) else "f")
    except ModuleNotFoundError:
        raise
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
