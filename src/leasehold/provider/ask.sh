# What a sandbox is asked with: which of these addresses answers, and what it says.
# $1: what to ask for, below each address; $2: what the right one answers; $3: seconds that one
# may take; then the addresses. The first is asked alone, the others at once if it is not it.
# One line for each that has answered or failed: its number, then what came of it.
what=$1 wanted=$2 seconds=$3
shift 3
if command -v curl >/dev/null 2>&1; then
    get() { curl -sSg -m "$seconds" "$1" 2>&1; }
elif wget --version >/dev/null 2>&1; then
    get() { wget -q -t 1 -T "$seconds" -O - "$1" 2>&1; }
elif command -v python3 >/dev/null 2>&1; then
    get() {
        python3 -c '
import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])) as answer:
    print(answer.read(200).decode(errors="replace"), end="")' "$1" "$seconds" 2>&1 | tail -n 1
    }
elif command -v bash >/dev/null 2>&1; then
    get() {
        bash -c '
rest=${1#http://}; place=${rest%%/*}; path=/${rest#*/}
port=${place##*:}; host=${place%:*}; [ "$port" = "$place" ] && port=80
host=${host#\[}; host=${host%\]}
exec 3<>"/dev/tcp/$host/$port" || exit
printf "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n" "$path" "$place" >&3
while IFS= read -r line <&3 || [ -n "$line" ]; do last=$line; done
printf %s "$last"' sh "$1" 2>&1
    }
elif command -v wget >/dev/null 2>&1; then
    # That of busybox, which may crash if given a timeout; who asks gives up in time.
    get() { wget -q -O - "$1" 2>&1; }
else
    get() { echo 'the sandbox has no curl, wget, python3 or bash'; }
fi
ask() {
    answer=$(get "$2$what" | head -c 200 | tr -cd '[:print:]')
    printf '%s %s\n' "$1" "${answer:-no answer}"
    [ "$answer" = "$wanted" ]
}
ask 0 "$1" && exit
number=0
shift
for url in "$@"; do
    number=$((number + 1))
    ask "$number" "$url" &
done
wait
