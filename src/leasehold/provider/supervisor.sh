# The supervisor: starts one command per execution, detached, and writes down how it ended.
#
# POSIX sh (dash, busybox ash, bash); needs /proc and: cat chmod cp dd env head ln ls mkdir mkfifo
# mv readlink rm setsid sleep tail tar wc; a grep makes it faster. supervisor.py holds the essay on the files and on what a
# death at each line leaves behind. A line with an effect ends in a mark, "#" "@ name": the crash
# harness runs copies of this script that kill themselves before or after such a line.
#
# The verbs that callers use are in verbs.sh; the two files are one script.
# Usage: sh -c 'S=$1; shift; eval "$S"' leasehold "$SCRIPT" VERB CONTROL_DIR ARG...
# Answers on stdout: "ok ..." or "error KIND text". Exit code 0 unless the shell itself failed.

umask 077
set -f
LC_ALL=C
verb=$1 ctl=$2
boot= ns= sep='
'

say() { printf '%s\n' "$*"; }
fail() { say "error $*"; exit 0; }
now() { read -r now _ </proc/uptime; frac=1${now#*.}; now=$((${now%.*} * 100 + frac - 100)); }
here() { # boot id and pid namespace of this place
  [ -n "$boot" ] && return
  read -r boot </proc/sys/kernel/random/boot_id
  ns=$(readlink /proc/self/ns/pid) || ns=unknown
}
number() { case $1 in '' | *[!0-9]*) return 1 ;; esac; }

# ---- processes ---------------------------------------------------------------------------

# A comm may hold blanks, brackets and newlines: the fields start after the last ")".
stat_of() {
  state='' stat=''
  { while read -r l; do stat="$stat$l "; done <"/proc/$1/stat"; } 2>/dev/null || return 1
  stat=${stat##*) }
  [ -n "$stat" ] || return 1
  pid_=$1
  # shellcheck disable=SC2086
  set -- $stat
  [ $# -ge 20 ] || return 1
  state=$1 session=$4
  shift 19
  began=$1
  case $state in
  X) return 1 ;;
  Z) # a dead first thread may have living brothers; a zombie has none
    set +f; set -- "/proc/$pid_/task/"*; set -f
    [ $# -gt 1 ] || return 1
    ;;
  esac
}

# Identity file -> id_pid id_began id_boot id_ns; then `alive`: 0 yes, 1 no, 2 elsewhere.
identity() { read -r id_pid id_began id_boot id_ns _ 2>/dev/null <"$1" && [ -n "$id_ns" ]; }
alive() {
  here
  [ "$id_boot" = "$boot" ] || return 1
  [ "$id_ns" = "$ns" ] || return 2
  stat_of "$id_pid" && [ "$began" = "$id_began" ]
}
record() { # who I am, under the name $1; by rename, so that it is there whole or not at all
  here
  stat_of $$
  say "$$ $began $boot $ns" >"$1.new" #@ record
  mv -f "$1.new" "$1" #@ recorded
}

# The living members of the session in identity file $1, and of the execution's cgroup.
# A number stays taken while its session has a member: if the number now belongs to a younger
# process, our session is gone.
members() {
  list=''
  identity "$1" || return 0
  here
  [ "$id_boot" = "$boot" ] || return 0
  sid=$id_pid sid_began=$id_began
  if [ "${1##*/}" = child ] && read -r group 2>/dev/null <"${1%/*}/cgroup" && [ -r "$group/cgroup.procs" ]; then
    while read -r p; do if stat_of "$p"; then list="$list $p"; fi; done <"$group/cgroup.procs"
  fi
  if stat_of "$sid" && [ "$began" != "$sid_began" ]; then return 0; fi
  for p in $(suspects "$sid"); do
    p=${p#/proc/} p=${p%/stat}
    if stat_of "$p" && [ "$session" = "$sid" ] && [ "$p" != $$ ]; then list="$list $p"; fi
  done
}
# Files of all processes that may be in session $1: a shell reads byte by byte, a `grep` does not.
# What follows the last ")" stands in one line, so none is missed; a comm may lie, so each of them
# must be looked at. Where there is no grep, all may be.
suspects() {
  set +f
  grep -lsE "\) [A-Za-z] -?[0-9]+ -?[0-9]+ $1 " /proc/[0-9]*/stat
  [ $? -ne 127 ] || printf '%s\n' /proc/[0-9]*/stat
}
signal() { # $1 to the members of $2
  members "$2"
  # shellcheck disable=SC2086
  [ -z "$list" ] || kill -s "$1" $list 2>/dev/null #@ signal
}
# KILL until none is left; a tree that forks while it dies is caught by the next look.
reap() {
  tries=0
  while members "$1"; [ -n "$list" ]; do
    # shellcheck disable=SC2086
    kill -s KILL $list 2>/dev/null #@ kill
    tries=$((tries + 1))
    [ $tries -lt 250 ] || return 1
    [ $tries -lt 3 ] || sleep 0.02
  done
}

# ---- fences and claims -------------------------------------------------------------------

sandbox() { [ -d "$ctl/x" ] && [ -d "$ctl/fence" ] || fail "gone no sandbox at $ctl"; }
highest() { set +f; for top in "$ctl/fence/"*; do :; done; set -f; top=${top##*/}; }
fence() { # install $1, then refuse if a higher one is there; names are padded to 20 digits
  sandbox
  [ -e "$ctl/fence/$1" ] || true 2>/dev/null >"$ctl/fence/$1" || { sandbox; fail "io cannot write the fence"; } #@ fence
  highest
  [ "$top" = "$1" ] || fail "stale the sandbox has fence $top"
}
owner() { go=$(readlink "$x/go" 2>/dev/null) || go=''; }
tombstone() { # win `go`, so that the command never starts; or learn who has it
  ln -s "by-$1" "$x/go" 2>/dev/null #@ tombstone
  owner
  case $go in
  by-supervisor) return 1 ;;
  '') sandbox; fail "io cannot write go" ;;
  esac
  rm -f "$x/cmd" "$x/stdin" "$x/in" #@ wipe
}
claimed() { [ -d "$x" ] || fail "unknown no execution $id"; }
ended() { [ -f "$x/exit" ] && read -r exit_line <"$x/exit" && [ -n "$exit_line" ]; }
never() { # nothing was started; what was about to start it ends too
  reap "$x/child" && reap "$x/super" || fail "busy the supervisor does not die"
  ! ended || { say "ok exited $exit_line"; exit 0; }
  # A machine that went down may have lost `go` with it: then a start cannot be ruled out.
  if identity "$x/super" && here && [ "$id_boot" != "$boot" ]; then say "ok lost"; else say "ok never"; fi
  exit 0
}
lost() { # the supervisor is dead: end what it left, look once more for its record
  reap "$x/child" && reap "$x/super" || fail "busy the command's session does not die"
  rm -f "$x/cmd" "$x/stdin" "$x/in" "$x/p.out" "$x/p.err" #@ wipe
  if ended; then say "ok exited $exit_line"; else say "ok lost"; fi
  exit 0
}

# ---- the supervisor and its two helpers --------------------------------------------------

# On a full disk the last words must still fit: their place is taken at the start, and they are
# written over it. Readers look at the first line only.
reserve() { printf '%120s\n' '' >"$1" || exit 1; }

# Pipe p.$1 -> file $1 up to the cap, then count what is cut. `dd` writes what it reads at once, so
# a follower sees each line; K full reads can never pass the cap, so it is exact. A full disk
# counts as the cap: the command goes on, what could not be kept is counted.
drain() {
  # By exec: what a call redirects, a shell keeps to restore it, and a pipe would never end.
  exec 3<"$x/p.$1" 5>&- 6>&-
  stop='' full='' size=0 d='' name=$1
  trap 'stop=1; read -r d 2>/dev/null <"$x/$name.pid"; kill "$d" 2>/dev/null' TERM
  reserve "$x/$name.new"
  true >"$x/$name" #@ output
  while [ -z "$stop$full" ] && [ $size -lt "$cap" ]; do
    left=$((cap - size)) bs=65536
    [ $left -ge 1048576 ] || bs=512
    [ $left -ge $bs ] || bs=$left
    dd bs=$bs count=$((left / bs)) <&3 >>"$x/$name" 2>/dev/null &
    d=$!
    wait $d || { wait $d || full=1; }
    was=$size size=$(wc -c <"$x/$name") size=$((size))
    [ $size -gt $was ] || break
  done
  if [ -z "$stop" ] && { [ -n "$full" ] || [ $size -ge "$cap" ]; }; then
    # What a full disk refused of the last block is not known: it counts as one.
    { [ -z "$full" ] || printf x; cat <&3 & say $! >"$x/$name.pid"; wait; } | wc -c 1<>"$x/$name.new" &
    wait $! || wait $!
  else
    say 0 1<>"$x/$name.new"
  fi
  mv -f "$x/$name.new" "$x/$name.cut" #@ drained
}

# Second line of the timeout, and the sandbox's own time to live. It goes on when the supervisor
# is killed, until the command's session is gone.
watchdog() {
  exec 7>&- 8>&-
  nap='' pardon=0
  trap '[ -z "$nap" ] || kill "$nap" 2>/dev/null; exit 0' TERM
  now
  wake=$now
  while :; do
    [ -d "$x" ] || exit 0
    now
    late=$((now - wake)) why='' wake=$((now + 500))
    if [ "$timeout" != - ]; then
      [ $now -lt $((t0 + timeout)) ] || why=timeout
      [ $wake -lt $((t0 + timeout)) ] || wake=$((t0 + timeout))
    fi
    if read -r d_boot d_at d_renew 2>/dev/null <"$ctl/deadline" && [ "$d_boot" = "$boot" ]; then
      # Who slept through its own alarm may have slept through a renewal: it waits for one more.
      [ $late -lt 300 ] || pardon=$((now + d_renew))
      [ "$d_at" -gt $pardon ] || d_at=$pardon
      [ $now -lt "$d_at" ] || why=expired
      [ $wake -lt "$d_at" ] || wake=$d_at
    fi
    [ -z "$why" ] || break
    if identity "$x/super" && ! alive; then
      members "$x/child"
      [ -n "$list" ] || exit 0
    fi
    wake=$((wake > now ? wake : now + 1)) pause=$((wake - now))
    sleep "$((pause / 100)).$((pause / 10 % 10))$((pause % 10))" &
    nap=$!
    wait $nap
    nap=''
  done
  ln -s "$why@$now@$grace" "$x/end" 2>/dev/null #@ end
  signal TERM "$x/child"
  signal CONT "$x/child"
  until=$((now + grace))
  while members "$x/child" && [ -n "$list" ] && [ $now -lt $until ]; do
    sleep 0.05
    now
  done
  reap "$x/child"
  exit 0
}

# In a session of its own: recorded first, then the right to start is won, then the command.
child() {
  # Here, not on the line that starts us: there our parent's stderr would be the command's too,
  # and its word about a death by signal would stand in the output.
  exec >&7 2>&8 7>&- 8>&-
  . "$x/spec"
  record "$x/child"
  if read -r group 2>/dev/null <"$x/cgroup"; then
    say 0 >"$group/cgroup.procs" || exit 125 #@ cgroup
  fi
  why=''
  cd -P -- "$cwd" 2>/dev/null || why=cwd
  root=$(cd -P -- "$root" 2>/dev/null && pwd -P) || why=cwd
  case $(pwd -P)/ in "${root%/}"/*) ;; *) why=cwd ;; esac
  [ -n "$why" ] || find_program
  text=$(cat "$x/cmd" && say x) || exit 125
  highest
  [ "$top" = "$fence" ] || exit 125
  ln -s by-supervisor "$x/go" 2>/dev/null || exit 125 #@ go
  rm -f "$x/cmd" "$x/stdin" #@ wipe
  if [ -n "$why" ]; then
    say "$why" >"$x/why" #@ why
    say "leasehold: $prog: $why" >&2
    [ $why = not_executable ] && exit 126
    exit 127
  fi
  umask 022
  set +f
  eval "${text%x}"
}
find_program() {
  why=not_found
  case $prog in
  */*)
    [ ! -e "$prog" ] || why=not_executable
    [ ! -f "$prog" ] || [ ! -x "$prog" ] || why=''
    ;;
  *)
    rest=$path:
    while [ -n "$rest" ] && [ -n "$why" ]; do
      dir=${rest%%:*} rest=${rest#*:}
      [ ! -f "${dir:-.}/$prog" ] || why=not_executable
      [ ! -f "${dir:-.}/$prog" ] || [ ! -x "${dir:-.}/$prog" ] || why=''
    done
    ;;
  esac
}

supervise() {
  cd /
  # Handlers, not "ignore": a command would inherit the latter.
  trap : HUP INT QUIT TERM
  record "$x/super"
  . "$x/spec"
  now
  t0=$now
  reserve "$x/exit.new" #@ reserve
  mkfifo "$x/p.out" "$x/p.err" || exit 1 #@ pipes
  # Each end is opened while we hold both, so that nobody can hang in an open if we die here.
  exec 5<>"$x/p.out" 6<>"$x/p.err"
  drain out & #@ filter
  filters=$!
  drain err & #@ filter
  filters="$filters $!"
  exec 7>"$x/p.out" 8>"$x/p.err" 5>&- 6>&-
  dog=''
  if [ "$timeout" != - ] || [ -f "$ctl/deadline" ]; then
    # It is born without our handler: what a shell gets between its birth and the moment in which
    # it forgets its parent's handlers is lost, and we would wait for it for ever.
    trap - TERM
    watchdog & #@ watchdog
    dog=$!
    trap : TERM
  fi
  # In the foreground: what a shell starts with "&" ignores INT and QUIT for ever. The shell
  # tells of a death by signal on its own stderr, except for INT and PIPE.
  { env -i "PATH=$PATH" setsid /bin/sh "$x/sh" child "$ctl" "$id" <"$x/stdin"; code=$?; } 2>"$x/how" #@ command
  exec 7>&- 8>&-
  owner
  if [ "$go" = by-supervisor ]; then finish; fi
  # shellcheck disable=SC2086
  kill $dog $filters 2>/dev/null
  wait
  rm -f "$x/p.out" "$x/p.err" "$x/how" "$x/sh" #@ tidy
}
finish() {
  now
  took=$((now - t0)) sig=- cause=exited
  if [ $code -gt 128 ] && { [ -s "$x/how" ] || [ $code = 130 ] || [ $code = 141 ]; }; then
    cause=signalled sig=$((code - 128)) code=-
  fi
  ln -s "itself@$now@100" "$x/end" 2>/dev/null #@ end
  end=$(readlink "$x/end") || end=itself@$now@100
  grace=${end##*@} since=${end#*@} since=${since%@*}
  case ${end%%@*} in
  itself) if read -r why 2>/dev/null <"$x/why"; then cause=$why; fi ;;
  *) cause=${end%%@*} code=- ;;
  esac
  case $cause in cwd) code=- ;; not_executable) code=126 ;; esac
  # Whoever of the session outlives its leader gets the grace, or a second; so does a pipe that
  # a process outside of the session holds.
  until=$((since + grace)) wide=$((since + grace + 100))
  while :; do
    members "$x/child"
    if [ -f "$x/out.cut" ] && [ -f "$x/err.cut" ]; then [ -n "$list" ] || break; fi
    [ -n "$list" ] || [ $until -le $((since + 100)) ] || until=$((since + 100))
    now
    if [ $now -ge $until ]; then
      reap "$x/child"
      # shellcheck disable=SC2086
      [ $now -lt $((until + 20)) ] || kill $filters 2>/dev/null
      [ $now -lt $wide ] || break
    fi
    sleep 0.02
  done
  [ -z "$dog" ] || { kill "$dog" 2>/dev/null; wait "$dog"; dog=''; }
  out=$(wc -c <"$x/out") err=$(wc -c <"$x/err")
  # A count that did not get through: something was cut, nobody knows how much.
  read -r out_cut 2>/dev/null <"$x/out.cut" && number "$out_cut" || out_cut=1
  read -r err_cut 2>/dev/null <"$x/err.cut" && number "$err_cut" || err_cut=1
  say "$cause $code $sig $((out)) $((err)) $((out_cut)) $((err_cut)) $took" 1<>"$x/exit.new" #@ exit
  mv -f "$x/exit.new" "$x/exit" #@ exited
}
