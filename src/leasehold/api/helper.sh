#!/bin/sh
# Reports of a Leasehold run, from inside its sandbox. Needs curl or wget; nothing else.
#
#   curl -fsS "$LEASEHOLD_API_URL/api/v1/run/helper.sh" >helper.sh
#   sh helper.sh heartbeat
#   sh helper.sh progress 40 "half of it"      (percent, words, or both)
#   sh helper.sh result '{"rows": 12}'         (JSON; - reads it from standard input)
#   sh helper.sh event loaded '{"rows": 12}'   (a name, and a JSON object if you like)
#   sh helper.sh artifact report.html [NAME]   (a file, and what to call it)
#   sh helper.sh show
#
# Or `. ./helper.sh`, then: leasehold_report progress 40 "half of it"
#
# Without an address and a token there is nobody to report to: it says so and ends with 3.

_leasehold_say() { printf 'leasehold: %s\n' "$*" >&2; }

_leasehold_quote() {
    # A JSON string of "$1", made without anything but the shell.
    _lh_rest=$1 _lh_out=
    while [ -n "$_lh_rest" ]; do
        _lh_tail=${_lh_rest#?}
        _lh_char=${_lh_rest%"$_lh_tail"}
        case $_lh_char in
            '"' | \\) _lh_out="$_lh_out\\$_lh_char" ;;
            [[:cntrl:]]) _lh_out="$_lh_out " ;;
            *) _lh_out="$_lh_out$_lh_char" ;;
        esac
        _lh_rest=$_lh_tail
    done
    printf '"%s"' "$_lh_out"
}

_leasehold_send() {
    # METHOD PATH [FILE]: with a file (- is standard input) as the body.
    _lh_method=$1 _lh_url=$LEASEHOLD_API_URL/api/v1/run$2 _lh_file=${3-}
    _lh_type=application/json
    case $2 in /artifacts/*) _lh_type=application/octet-stream ;; esac
    if command -v curl >/dev/null 2>&1; then
        # The token goes through a file descriptor: arguments are for everybody to see.
        set -- -sSg --fail-with-body --retry 3 --max-time 600 -X "$_lh_method" -H "Content-Type: $_lh_type"
        if ! curl --fail-with-body --version >/dev/null 2>&1; then
            set -- -sSg -f --retry 3 --max-time 600 -X "$_lh_method" -H "Content-Type: $_lh_type"
        fi
        if [ "$_lh_method" = PUT ]; then
            set -- "$@" -T "$_lh_file" -H 'Expect:'
        elif [ -n "$_lh_file" ]; then
            set -- "$@" --data-binary "@$_lh_file"
        fi
        curl "$@" -K /dev/fd/9 "$_lh_url" 9<<LEASEHOLD_END
header = "Authorization: Bearer $LEASEHOLD_TOKEN"
LEASEHOLD_END
        _lh_code=$?
        [ "$_lh_code" -eq 0 ] && echo
        return "$_lh_code"
    elif wget --version 2>/dev/null | head -n 1 | grep -q GNU; then
        set -- -q -O - --content-on-error -T 60 -t 3 --method="$_lh_method" --header="Content-Type: $_lh_type"
        [ -n "$_lh_file" ] && set -- "$@" --body-file="$_lh_file"
        # It reads settings from real files only; this one nobody else may read.
        _lh_config=$(mktemp "${TMPDIR:-/tmp}/leasehold.XXXXXX") || return 4
        printf 'header = Authorization: Bearer %s\n' "$LEASEHOLD_TOKEN" >"$_lh_config"
        wget --config="$_lh_config" "$@" "$_lh_url"
        _lh_code=$?
        rm -f "$_lh_config"
        [ "$_lh_code" -eq 0 ] && echo
        return "$_lh_code"
    elif command -v wget >/dev/null 2>&1; then
        # That of busybox knows no PUT and no file of settings, and may crash if given a timeout.
        if [ "$_lh_method" = PUT ]; then
            _leasehold_say 'this wget cannot send files; install curl'
            return 4
        fi
        set -- -q -O - --header "Content-Type: $_lh_type"
        if [ "$_lh_method" = POST ]; then
            set -- "$@" --post-data "$(if [ -n "$_lh_file" ]; then cat "$_lh_file"; fi)"
        fi
        wget --header "Authorization: Bearer $LEASEHOLD_TOKEN" "$@" "$_lh_url" && echo
    else
        _leasehold_say 'neither curl nor wget is here to report with'
        return 4
    fi
}

_leasehold_post() {
    # PATH TEXT: through a file, since arguments are for everybody to see.
    _lh_body=$(mktemp "${TMPDIR:-/tmp}/leasehold.XXXXXX") || return 4
    printf '%s' "$2" >"$_lh_body"
    _leasehold_send POST "$1" "$_lh_body"
    _lh_done=$?
    rm -f "$_lh_body"
    return "$_lh_done"
}

leasehold_report() {
    if [ -z "${LEASEHOLD_API_URL-}" ] || [ -z "${LEASEHOLD_TOKEN-}" ]; then
        _leasehold_say 'this sandbox was given no address to report to'
        return 3
    fi
    case ${1-} in
        heartbeat) _leasehold_post /heartbeat '' ;;
        show) _leasehold_send GET '' ;;
        progress)
            case ${2-} in
                '' | *[!0-9.]*)
                    _leasehold_post /progress "{\"message\":$(_leasehold_quote "${2-}")}" ;;
                *)
                    if [ -n "${3-}" ]; then
                        _leasehold_post /progress \
                            "{\"percent\":$2,\"message\":$(_leasehold_quote "$3")}"
                    else
                        _leasehold_post /progress "{\"percent\":$2}"
                    fi ;;
            esac ;;
        result)
            if [ "${2--}" = - ]; then
                _leasehold_post /result "$(cat)"
            else
                _leasehold_post /result "$2"
            fi ;;
        event)
            _leasehold_post /events \
                "{\"name\":$(_leasehold_quote "${2-}"),\"data\":${3:-"{}"}}" ;;
        artifact)
            if [ ! -f "${2-}" ]; then
                _leasehold_say "there is no file ${2-}"
                return 2
            fi
            _leasehold_send PUT "/artifacts/${3:-${2##*/}}" "$2" ;;
        *)
            _leasehold_say 'heartbeat, progress, result, event, artifact or show'
            return 2 ;;
    esac
}

# Read by another script it only brings the function along: that one's second line is another.
_lh_second=
if [ -f "$0" ]; then
    { read -r _lh_second && read -r _lh_second; } <"$0" || :
fi
case $_lh_second in
    '# Reports of a Leasehold run'*) leasehold_report "$@" ;;
esac
