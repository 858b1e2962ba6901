# Replaces pg_hba.conf by the bytes on standard input, if it still is what was read: all or nothing.
# $1 real path  $2 checksum and size, as cksum prints them, of what was read  $3 bytes on standard input
# $4 their checksum and size
path=$1 before=$2 size=$3 after=$4
umask 077

unchanged() {
    [ -f "$path" ] && [ ! -L "$path" ] && [ "$(cksum <"$path")" = "$before" ]
}

status() {
    stat -c '%u:%g:%a' -- "$1"
}

case $path in
/*/*) ;;
*) fail 30 "$path is no absolute path" ;;
esac
folder=${path%/*}
[ -f "$path" ] || fail 20 "$path does not exist"
unchanged || fail 31 "$path has changed"
[ -w "$folder" ] || fail 32 "$folder cannot be written to by uid $(id -u)"
# What a killed run may have left behind.
rm -f -- "$folder"/.pg_hba.conf.dbssl.??????
new=$(mktemp "$folder/.pg_hba.conf.dbssl.XXXXXX") || fail 32 "no file can be made in $folder"
trap 'rm -f -- "$new"' EXIT
trap 'exit 39' HUP INT TERM PIPE
# Owner and mode come with the copy, the content goes over it.
cp -p -- "$path" "$new" || fail 33 "cp $path"
[ "$(status "$new")" = "$(status "$path")" ] ||
    fail 34 "the owner $(status "$path") of $path cannot be kept by uid $(id -u)"
if [ ! -w "$new" ]; then
    chmod u+w -- "$new" || fail 33 "chmod $new"
fi
head -c "$size" >"$new" || fail 33 "write $new"
[ "$(cksum <"$new")" = "$after" ] || fail 35 "not all bytes arrived"
chmod "$(stat -c %a -- "$path")" -- "$new" || fail 33 "chmod $new"
sync "$new" 2>/dev/null || :
unchanged || fail 31 "$path has changed"
mv -f -- "$new" "$path" 2>/dev/null || fail 36 "$path cannot be replaced: it may be a mount of its own"
sync "$folder" 2>/dev/null || :
printf 'dbssl-hba written\n'
