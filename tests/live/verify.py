"""A handshake in memory, by Python's ssl at its strictest: verify.py ROOTS CHAIN KEY NAME."""

import ssl
import sys

roots, chain, key, name = sys.argv[1:]
server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
server.load_cert_chain(chain, key)
client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
client.load_verify_locations(roots)
client.verify_flags |= ssl.VERIFY_X509_STRICT
to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
ends = [
    client.wrap_bio(to_client, to_server, server_hostname=name),
    server.wrap_bio(to_server, to_client, server_side=True),
]
for _ in range(10):
    for end in ends:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            pass
assert ends[0].version() == "TLSv1.3", "no handshake"
