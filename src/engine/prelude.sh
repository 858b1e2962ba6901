# What every script begins with.
LC_ALL=C
export LC_ALL

# fail CODE TEXT…: the code says what is in the way (Refusal in script.rs), the text is for people.
fail() {
    code=$1
    shift
    printf '%s\n' "$*" >&2
    exit "$code"
}

# The first of these programs that there is.
first_of() {
    for program; do
        if command -v "$program" >/dev/null 2>&1; then
            printf '%s\n' "$program"
            return
        fi
    done
    return 1
}
