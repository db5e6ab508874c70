# Inside of the container: waits for its command, runs it, says how it ended.
#
# Usage: sh -c "$TEXT" leasehold DIR, as the command's user. DIR has the pipes of this start (see
# `starting`): it opens `stdin`, `cmd` and `said`, says its number, and does nothing until the host
# has sent it the command, whole. What it says is a line "<token> <word> ...": the token came with
# the command, is no variable that a command inherits and stands in no file. Any other line is the
# shell's own word about a death by signal.
#
# It decides nothing. The host sees its end by a descriptor of its process, ends whatever is left
# in its control group, and only then believes what it said.

trap : HUP INT QUIT TERM
umask 022
lh_io=$1
exec 3<"$lh_io/stdin" 4<"$lh_io/cmd" 9>"$lh_io/said" || exit 125
echo "pid $$" >&9
lh_text=$(cat <&4; echo x)
case $lh_text in *'
: end
x') ;; *) exit 125 ;; esac
exec 4<&- 2>&9

lh_tell() { printf '%s\n' "$lh_token $*" >"$lh_io/said"; }
lh_refuse() { # why code
  lh_tell why "$1"
  echo "leasehold: $lh_prog: $1" >&2
  exit "$2"
}
lh_find() {
  lh_why=not_found
  case $lh_prog in
  */*)
    [ ! -e "$lh_prog" ] || lh_why=not_executable
    [ ! -f "$lh_prog" ] || [ ! -x "$lh_prog" ] || lh_why=
    ;;
  *)
    lh_rest=$lh_path:
    while [ -n "$lh_rest" ] && [ -n "$lh_why" ]; do
      lh_dir=${lh_rest%%:*} lh_rest=${lh_rest#*:}
      [ ! -f "${lh_dir:-.}/$lh_prog" ] || lh_why=not_executable
      [ ! -f "${lh_dir:-.}/$lh_prog" ] || [ ! -x "${lh_dir:-.}/$lh_prog" ] || lh_why=
    done
    ;;
  esac
}
lh_run() (
  exec 9>&- <&3 3<&- >"$lh_io/out" 2>"$lh_io/err"
  trap - HUP INT QUIT TERM
  cd -P -- "$lh_cwd" 2>/dev/null || lh_refuse cwd 127
  lh_find
  case $lh_why in not_found) lh_refuse not_found 127 ;; ?*) lh_refuse "$lh_why" 126 ;; esac
  # Whoever has to die for lack of memory, it shall be the command.
  echo 500 2>/dev/null >/proc/self/oom_score_adj
  # Only a failed exec comes back to this shell.
  trap 'lh_refuse not_executable 126' EXIT
  lh_become
)
eval "${lh_text%x}"
lh_run
lh_tell code $?
