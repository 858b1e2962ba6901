"""How long a PostgreSQL in a container cannot be reached while it gets TLS. Started by scripts/bench.

A client connects again and again, as fast as one connection after the other goes, and what counts is the time from the
last connection before the first failure to the first one after the last failure. A connection is good when the server
asks for a password: then it is ready, not merely listening.
"""

import argparse
import itertools
import json
import pathlib
import socket
import ssl
import statistics
import struct
import subprocess
import time

USER = b"user\0postgres\0database\0postgres\0\0"
STARTUP = struct.pack("!II", 8 + len(USER), 196608) + USER  # protocol 3.0
SSL_REQUEST = struct.pack("!II", 8, 80877103)
# A breath between two connections, so that the measuring does not slow down what it measures.
PAUSE = 0.005
CERTS = "/var/lib/postgresql/certs"


def docker(*arguments):
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Client:
    """Connects to one database through a published port, with the certificate checked for its name."""

    def __init__(self, name, port, bundle):
        self.name, self.port, self.bundle = name, port, pathlib.Path(bundle)

    def connect(self):
        """`tls` or `plain`: how a connection came about; otherwise an exception."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(SSL_REQUEST)
            answer = connection.recv(1)
            if answer == b"S":
                context = ssl.create_default_context(cafile=self.bundle)
                with context.wrap_socket(connection, server_hostname=self.name) as encrypted:
                    self.start(encrypted)
                return "tls"
            if answer == b"N":
                self.start(connection)
                return "plain"
            raise ConnectionError("no answer")

    @staticmethod
    def start(connection):
        connection.sendall(STARTUP)
        answer = connection.recv(1)
        if answer != b"R":
            raise ConnectionError(f"not asked for a password: {answer!r}")

    def attempt(self):
        try:
            return self.connect()
        except OSError:  # ssl.SSLError is one too
            return None

    def wait_until_ready(self, deadline=60):
        """Ready for good: not the temporary server of a first start, which nobody reaches over the network anyway."""
        end = time.monotonic() + deadline
        while self.attempt() is None:
            if time.monotonic() > end:
                raise SystemExit(f"{self.name} did not get ready within {deadline} s")
            time.sleep(0.05)


def outage(client, wanted, over, deadline=180):
    """Polls until `over()` and a connection of the kind `wanted`; returns the length of the outage in seconds.

    `over` tells whether the change is done, and is asked only after a connection of the wanted kind.
    """
    end = time.monotonic() + deadline
    last_good = time.monotonic()
    went_down = came_back = None
    while True:
        kind = client.attempt()
        now = time.monotonic()
        if kind is None:
            went_down = went_down or last_good
            came_back = None
        else:
            # A plain connection to a database that should serve TLS is one to the old container.
            if went_down and kind == wanted:
                came_back = came_back or now
            last_good = now
        if came_back and over():
            return came_back - went_down
        if now > end:
            raise SystemExit(f"{client.name}: no outage of the kind that was expected within {deadline} s")
        time.sleep(PAUSE)


class Bench:
    def __init__(self, options):
        self.options = options
        self.label = f"dbssl-bench={options.run}"
        self.rounds = itertools.count(1)
        self.work = pathlib.Path(options.folder)

    def fresh(self, way):
        """A name and a port that no round before has used: nothing is left over from another one."""
        return f"dbssl-bench-{self.options.run}-{way}{next(self.rounds)}", free_port()

    def run_container(self, name, port, *more):
        docker("volume", "create", "--label", self.label, name)
        docker(
            "run", "-d", "--name", name, "--label", self.label, *more,
            "-e", "POSTGRES_PASSWORD=secret", "-p", f"127.0.0.1:{port}:5432", "-v", f"{name}:{self.options.volume}",
            self.options.image,
        )  # fmt: skip

    def remove(self, name):
        docker("rm", "-fv", name)
        docker("volume", "rm", name)

    def restart(self):
        """The floor: nothing changes, the same container stops and starts."""
        name, port = self.fresh("restart")
        self.run_container(name, port)
        client = Client(name, port, "/dev/null")
        client.wait_until_ready()
        command = subprocess.Popen(["docker", "restart", name], stdout=subprocess.DEVNULL)
        seconds = outage(client, "plain", lambda: command.poll() is not None)
        self.remove(name)
        return seconds

    def dbssl(self):
        """A running database gets TLS from the agent, until the agent's own proof."""
        name, port = self.fresh("dbssl")
        self.run_container(name, port, "--label", "dbssl.enable=true")
        client = Client(name, port, self.work / "ssl" / "coolify-ca.crt")
        client.wait_until_ready()

        # Asking the agent takes a process and some probes of its own: not more often than now and then.
        asked = 0.0

        def proved():
            nonlocal asked
            if time.monotonic() - asked < 0.5:
                return False
            asked = time.monotonic()
            status = subprocess.run([self.work / "dbssl", "status"], capture_output=True, text=True)
            if status.returncode > 1:
                raise SystemExit(f"dbssl status failed: {status.stderr}")
            return status.returncode == 0

        seconds = outage(client, "tls", proved)
        self.remove(name)
        return seconds

    def coolify(self):
        """What Coolify does when its SSL switch is turned on: stop, remove, create anew, with certificates at hand."""
        name, port = self.fresh("coolify")
        folder = self.work / "coolify" / name
        (folder / "certs").mkdir(parents=True)
        (folder / "certs").chmod(0o755)
        self.certificate(name, folder / "certs")
        docker("volume", "create", "--label", self.label, name)
        compose = ["docker", "compose", "--project-name", name, "--project-directory", str(folder)]
        self.compose_file(folder, name, port, tls=False)
        subprocess.run([*compose, "up", "-d"], check=True, capture_output=True)
        client = Client(name, port, folder / "certs" / "coolify-ca.crt")
        client.wait_until_ready()
        self.compose_file(folder, name, port, tls=True)
        command = subprocess.Popen(
            ["sh", "-ec", 'docker stop "$0"; docker rm -f "$0"; exec "$@"', name, *compose, "up", "-d"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        seconds = outage(client, "tls", lambda: command.poll() is not None)
        subprocess.run([*compose, "down"], check=True, capture_output=True)
        docker("volume", "rm", name)
        return seconds

    def compose_file(self, folder, name, port, tls):
        service = {
            "image": self.options.image,
            "container_name": name,
            "labels": [self.label],
            "restart": "unless-stopped",
            "environment": {"POSTGRES_PASSWORD": "secret"},
            "ports": [f"127.0.0.1:{port}:5432"],
            "volumes": [f"{name}:{self.options.volume}"],
        }
        if tls:
            service["volumes"].append(f"{folder}/certs:{CERTS}:ro")
            flags = ["ssl=on", f"ssl_cert_file={CERTS}/server.crt", f"ssl_key_file={CERTS}/server.key"]
            service["command"] = ["postgres", *(word for flag in flags for word in ("-c", flag))]
        # Compose reads YAML, of which JSON is a part.
        (folder / "compose.yaml").write_text(
            json.dumps({"services": {"db": service}, "volumes": {name: {"external": True}}})
        )

    def certificate(self, name, folder):
        """A self-signed one will do: it is what the client is told to trust."""
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
             "-subj", "/CN=bench", "-addext", f"subjectAltName=DNS:{name}",
             # Strict clients demand a CA to say that it may sign.
             "-addext", "keyUsage=critical,digitalSignature,keyCertSign",
             "-keyout", folder / "server.key", "-out", folder / "server.crt"],
            check=True,
            capture_output=True,
        )  # fmt: skip
        (folder / "coolify-ca.crt").write_bytes((folder / "server.crt").read_bytes())
        subprocess.run(["chown", self.options.owner, folder / "server.key"], check=True)


WAYS = {
    "restart": ("docker restart, nothing changed", Bench.restart),
    "dbssl": ("dbssl gives a running database TLS", Bench.dbssl),
    "coolify": ("Coolify's own: stop, rm, compose up", Bench.coolify),
}


def table(taken):
    floor = statistics.median(taken["restart"]) if taken.get("restart") else None
    print(f"\n    {'outage':<36} {'median':>8} {'least':>8} {'most':>8} {'ratio':>7}")
    for way, seconds in taken.items():
        median = statistics.median(seconds)
        ratio = f"{median / floor:>7.2f}" if floor else f"{'-':>7}"
        print(f"    {WAYS[way][0]:<36} {median:>6.2f} s {min(seconds):>6.2f} s {max(seconds):>6.2f} s {ratio}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True, help="what sets this run's containers apart")
    parser.add_argument("--folder", required=True, help="the agent's folder, as scripts/lib/agent.sh lays it out")
    parser.add_argument("--image", required=True)
    parser.add_argument("--volume", required=True, help="the image's data volume")
    parser.add_argument("--owner", required=True, help="the image's database user, uid:gid")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--only", choices=WAYS, action="append")
    options = parser.parse_args()
    bench = Bench(options)
    taken = {way: [] for way in options.only or WAYS}
    # Interleaved, so that what slows the machine down for a while slows all of them down.
    for number in range(1, options.rounds + 1):
        for way in taken:
            seconds = WAYS[way][1](bench)
            taken[way].append(seconds)
            print(f"    round {number}/{options.rounds}  {way:<8} {seconds:.2f} s", flush=True)
    table(taken)


if __name__ == "__main__":
    main()
