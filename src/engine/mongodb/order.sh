# Gives MongoDB an order, as the root user of the image, over the loopback of its own container.
# $1 port  $2 the statement  $3 a client's certificate and key, where the server demands one
port=$1 statement=$2 certificate=$3

command -v mongosh >/dev/null 2>&1 || fail 50 'there is no mongosh'

DBSSL_USER=${MONGO_INITDB_ROOT_USERNAME:-}
DBSSL_PASSWORD=${MONGO_INITDB_ROOT_PASSWORD:-}
for file in "${MONGO_INITDB_ROOT_USERNAME_FILE:-}" "${MONGO_INITDB_ROOT_PASSWORD_FILE:-}"; do
    [ -z "$file" ] || [ -r "$file" ] || fail 51 "$file cannot be read by uid $(id -u)"
done
[ -z "${MONGO_INITDB_ROOT_USERNAME_FILE:-}" ] || DBSSL_USER=$(cat "$MONGO_INITDB_ROOT_USERNAME_FILE")
[ -z "${MONGO_INITDB_ROOT_PASSWORD_FILE:-}" ] || DBSSL_PASSWORD=$(cat "$MONGO_INITDB_ROOT_PASSWORD_FILE")
export DBSSL_USER DBSSL_PASSWORD

if [ -n "$DBSSL_USER" ]; then
    statement="db.getSiblingDB(\"admin\").auth(process.env.DBSSL_USER, process.env.DBSSL_PASSWORD); $statement"
fi
# Whatever it serves now, for that may be what is to be mended. Its shell wants a home to write to.
HOME=$(mktemp -d "${TMPDIR:-/tmp}/dbssl.XXXXXX") || HOME=/nonexistent
export HOME
trap 'rm -rf -- "$HOME"' EXIT
set -- --quiet --norc --host 127.0.0.1 --port "$port" --tls --tlsAllowInvalidCertificates
[ ! -r "$certificate" ] || set -- "$@" --tlsCertificateKeyFile "$certificate"
said=$(mongosh "$@" --eval "$statement" 2>&1 </dev/null)
status=$?
case $status:$said in
0:1 | 0:*'
1') echo 'dbssl done' ;;
*AuthenticationFailed* | *'Authentication failed'*) fail 52 "$said" ;;
*Unauthorized* | *'not authorized'* | *'requires authentication'*) fail 53 "$said" ;;
*InvalidSSLConfiguration* | *'rotation failed'* | *'certificate'*) fail 54 "$said" ;;
*) fail 55 "$said" ;;
esac
