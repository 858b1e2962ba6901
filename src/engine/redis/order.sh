# Gives Redis, Valkey or KeyDB an order, over the loopback of its own container.
# $1 reload or refuse  $2 TLS port  $3 plaintext port, or 0  $4 certificate directory  $5 configuration file, or empty
# Standard input: one line, the password of the command, or empty.
order=$1 tls_port=$2 port=$3 certs=$4 conf=$5

client=$(first_of redis-cli valkey-cli keydb-cli) || fail 50 'there is no redis-cli, valkey-cli or keydb-cli'

IFS= read -r password || :
[ -n "$password" ] || password=${REDIS_PASSWORD:-${VALKEY_PASSWORD:-${KEYDB_PASSWORD:-}}}
file=${REDIS_PASSWORD_FILE:-${VALKEY_PASSWORD_FILE:-}}
if [ -z "$password" ] && [ -n "$file" ]; then
    password=$(cat "$file" 2>/dev/null) || fail 51 "$file cannot be read by uid $(id -u)"
fi
if [ -z "$password" ] && [ -r "$conf" ]; then
    name='[Rr][Ee][Qq][Uu][Ii][Rr][Ee][Pp][Aa][Ss][Ss]'
    # The quotes around it are not the password's; those within are.
    password=$(sed -n "s/^[[:space:]]*$name[[:space:]]\\{1,\\}//p" "$conf" | sed -n '$s/[[:space:]]*$//p' |
        sed -e 's/^"\(.*\)"$/\1/' -e t -e "s/^'\\(.*\\)'\$/\\1/")
fi
if [ -n "$password" ]; then
    REDISCLI_AUTH=$password
    VALKEYCLI_AUTH=$password
    export REDISCLI_AUTH VALKEYCLI_AUTH
else
    unset REDISCLI_AUTH VALKEYCLI_AUTH
fi

# Where the server demands a certificate of its clients, one for those in here lies beside its own.
shown() {
    if [ -r "$certs/client.key" ]; then
        "$client" --cert "$certs/client.crt" --key "$certs/client.key" "$@"
    else
        "$client" "$@"
    fi
}

# Over TLS first, which is open in every mode; whatever it serves now, for that may be what is to be mended.
say() {
    said=$(shown --no-auth-warning --tls --insecure -h 127.0.0.1 -p "$tls_port" "$@" 2>&1 </dev/null)
    case $said in
    *'Could not connect'* | *'Error: '* | *'SSL_connect'*)
        [ "$port" != 0 ] || return
        said=$("$client" --no-auth-warning -h 127.0.0.1 -p "$port" "$@" 2>&1 </dev/null)
        ;;
    esac
}

# The client ends well whatever the server says: only OK is OK. What it says holds no password.
obeyed() {
    case $said in
    OK) echo 'dbssl done' ;;
    *NOAUTH* | *WRONGPASS* | *'invalid password'* | *'AUTH failed'*) fail 52 "$said" ;;
    *NOPERM*) fail 53 "$said" ;;
    *'unable to'* | *'Unable to'*) fail 54 "$said" ;;
    *) fail 55 "$said" ;;
    esac
}

case $order in
reload)
    say CONFIG SET tls-cert-file "$certs/server.crt" tls-key-file "$certs/server.key" \
        tls-ca-cert-file "$certs/coolify-ca.crt"
    case $said in
    # Before 7.0 one setting at a time; each of them reads all three files.
    *'number of arguments'*) say CONFIG SET tls-cert-file "$certs/server.crt" ;;
    esac
    obeyed
    ;;
refuse)
    say CONFIG SET port 0
    obeyed
    ;;
esac
