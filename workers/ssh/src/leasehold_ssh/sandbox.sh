# The sandboxes of one target: makes, finds, extends and removes them, and looks at many at once.
#
# POSIX sh like the supervisor, whose text it gets as its first word and whose functions it uses;
# needs mv -T besides. sandbox.py holds the essay on the files and on what a death at each line
# leaves behind. A line with an effect ends in a mark, "#" "@ name": crash tests run copies that
# kill themselves before or after such a line.
#
# Usage: sh -c "$THIS" leasehold "$SUPERVISOR" VERB ARG...
# Answers on stdout: "ok ..." or "error KIND text", like the supervisor.

umask 077
S=$1 do=$2 ctl=/
shift 2

core() { # the supervisor's functions, and where we are
  set -- load "$ctl"
  eval "$S"
  here
  now
}
at() { # base name deployment lease: the sandbox that the rest is about
  base=$1 name=$2 whose="$3 $4"
  box=$base/sb-$name
  core
}

# ---- what stands there -------------------------------------------------------------------

# -> kind: ours, none, foreign; and the label's words; and ctl
label() {
  kind=none inc='' other=''
  if read -r version inc num made_boot made other 2>/dev/null <"$box/label"; then
    kind=foreign
    [ "$version $other" != "1 $whose" ] || kind=ours
  elif [ -d "$box" ]; then
    kind=foreign
  fi
  ctl=$box/$inc/control
}
ours() { # incarnation|-: refuse if it is not there
  label
  [ $kind = ours ] || fail "gone there is no sandbox $box"
  [ "$1" = - ] || [ "$1" = "$inc" ] || fail "gone another sandbox stands at $box"
  sandbox
}
left() { # -> left: 1/100 s until it ends by itself
  left=0 d_boot=''
  read -r d_boot d_at d_renew 2>/dev/null <"$ctl/deadline" || return 0
  [ "$d_boot" != "$boot" ] || [ "$d_at" -le "$now" ] || left=$((d_at - now))
}
# Is there a command whose end nobody has decided? Past its time such a sandbox has not ended: its
# supervisor was stopped with the whole machine, and waits for one renewal when it wakes.
awaited() {
  [ "$d_boot" = "$boot" ] || return 1
  set +f
  set -- "$ctl/x/"*
  set -f
  for x; do
    [ -h "$x/go" ] && [ ! -h "$x/end" ] && [ ! -f "$x/exit" ] || continue
    owner
    [ "$go" != by-supervisor ] || return 0
  done
  return 1
}

# ---- effects -----------------------------------------------------------------------------

extend() { # control ttl
  say "$boot $((now + $2)) $(($2 / 3))" 2>/dev/null >"$1/deadline.$$" || return 1 #@ deadline
  mv -f "$1/deadline.$$" "$1/deadline" 2>/dev/null #@ extended
}
renewed() { extend "$ctl" "$1" || { sandbox; fail "io cannot write the deadline"; }; }

make() { # fence incarnation number ttl: whole under a name of its own, then under the name
  [ -d "$base" ] || mkdir -p "$base" 2>/dev/null || fail "io cannot create $base" #@ base
  new=$base/.new-$name.$$.$2
  mkdir "$new" 2>/dev/null || fail "io cannot create a directory in $base" #@ new
  mkdir "$new/$2" "$new/$2/work" "$new/$2/tmp" "$new/$2/control" "$new/$2/control/fence" "$new/$2/control/x" && #@ rooms
    true >"$new/$2/control/fence/$1" && #@ first
    extend "$new/$2/control" "$4" &&
    say "1 $2 $3 $boot $now $whose" >"$new/label" || fail "io cannot write below $base" #@ label
  if mv -T "$new" "$box" 2>/dev/null; then #@ name
    return 0
  fi
  remove "$new"
  [ -d "$box" ] || fail "io cannot create $box"
  return 1
}
remove() {
  # A command may have taken the rights off its own directories.
  rm -rf "$1" 2>/dev/null || { chmod -R u+rwx "$1"; rm -rf "$1"; } 2>/dev/null #@ delete
  [ ! -e "$1" ] || fail "io cannot remove $1"
}
clear() { # unfinished and removed ones of this name; those of living makers only if told: all
  set +f
  set -- "$1" "$base/.dead-$name."* "$base/.new-$name."*
  set -f
  all=$1
  shift
  for rest; do
    [ -d "$rest" ] || continue
    maker=${rest#"$base/.new-$name."}
    [ "$all" = all ] || [ "$maker" = "$rest" ] || [ ! -d "/proc/${maker%%.*}" ] || continue
    remove "$rest"
  done
}

# ---- verbs -------------------------------------------------------------------------------

acquire() { # base name deployment lease fence incarnation number ttl known|-
  at "$1" "$2" "$3" "$4"
  outcome=adopted
  if [ "$9" != - ]; then
    outcome=resumed
    ours "$9"
  else
    clear dead
    label
    if [ $kind = none ] && make "$5" "$6" "$7" "$8"; then outcome=created; fi
    label
    [ $kind != foreign ] || { say "ok foreign"; exit 0; }
    ours -
  fi
  # Also into our own: between the name and now, a newer holder may have come.
  fence "$5"
  renewed "$8"
  say "ok $outcome $inc"
}
inspect() { # base name deployment lease incarnation|-
  at "$1" "$2" "$3" "$4"
  label
  if [ $kind != ours ] || [ ! -d "$ctl/x" ] || { [ "$5" != - ] && [ "$5" != "$inc" ]; }; then
    say "ok gone"
    exit 0
  fi
  left
  # Its commands are dead; its files are not: `acquire` makes it ready again.
  if [ $left = 0 ]; then say "ok stopped $inc 0"; else say "ok ready $inc $left"; fi
}
renew() { # base name deployment lease incarnation|- fence ttl
  at "$1" "$2" "$3" "$4"
  ours "$5"
  fence "$6"
  left
  [ $left != 0 ] || awaited || fail "gone the sandbox $box has ended by itself"
  renewed "$7"
  say "ok"
}
keep() { # base name deployment lease incarnation|- fence
  at "$1" "$2" "$3" "$4"
  ours "$5"
  fence "$6"
  say "ok"
}
suspend() { # as keep; its commands end
  at "$1" "$2" "$3" "$4"
  ours "$5"
  finish_all "$6"
}
destroy() { # as keep. Two lines: "ok", then "removed" when nothing is left
  at "$1" "$2" "$3" "$4"
  label
  if [ $kind = ours ] && { [ "$5" = - ] || [ "$5" = "$inc" ]; }; then
    mine=$inc
    # A command shares our account: it may have removed the supervisor's files.
    if [ -d "$ctl/x" ] && [ -d "$ctl/fence" ]; then finish_all "$6"; else say "ok"; fi
    # A lease's name is not given anew once its destroy is owed; looking at the label once more
    # keeps a late second destroy from whatever stands there against that rule.
    label
    if [ $kind = ours ] && [ "$inc" = "$mine" ]; then
      mv -T "$box" "$base/.dead-$name.$inc.$$" 2>/dev/null || [ ! -d "$box" ] || fail "io cannot rename $box" #@ unname
    fi
  else
    say "ok"
  fi
  [ $kind = foreign ] || clear all
  say "removed"
}
list() { # base deployment
  core
  [ ! -d "$1" ] || [ -r "$1" ] || fail "io cannot list $1"
  say "ok"
  set +f
  for box in "$1"/sb-*; do
    read -r version inc num made_boot made whose 2>/dev/null <"$box/label" || continue
    [ "$version ${whose% *}" = "1 $2" ] || continue
    ctl=$box/$inc/control age=$now
    [ "$made_boot" != "$boot" ] || age=$((now - made))
    highest
    say "own ${box##*/} $inc $num $top $age ${whose##* }"
  done
  say "end"
}
probe() { # base
  missing=''
  for tool in cat chmod cp dd env head ln mkdir mkfifo mv readlink rm setsid sleep tail tar wc; do
    command -v $tool >/dev/null 2>&1 || missing="$missing $tool"
  done
  case $(mv --help 2>&1) in *-T*) ;; *) missing="$missing mv-T" ;; esac
  [ -r /proc/uptime ] && [ -r /proc/self/stat ] || missing="$missing /proc"
  base=$1
  while [ ! -e "$base" ]; do base=${base%/*}; base=${base:-/}; done
  writable=no
  [ ! -d "$base" ] || [ ! -w "$base" ] || [ ! -x "$base" ] || writable=yes
  read -r kernel </proc/sys/kernel/osrelease
  printf 'ok %s %s%s\n' "$kernel" $writable "$missing"
}

# A poll of many: three forks for all of them, and two more for each that has new output.
survey() { # limit mark; stdin: lines "id out_offset err_offset control"
  limit=$1 mark=$2 n=0
  core
  set --
  while read -r id at_out at_err ctl; do
    n=$((n + 1)) x=$ctl/x/$id run=none exit_line=-
    if [ -d "$ctl/x" ]; then look; fi
    [ $run = exited ] || exit_line=-
    eval "id$n=\$id x$n=\$x run$n=\$run end$n=\$exit_line out$n=\$at_out err$n=\$at_err"
    # Only now, after the look: what has exited has written all.
    [ ! -s "$x/out" ] || set -- "$@" "$x/out"
    [ ! -s "$x/err" ] || set -- "$@" "$x/err"
  done
  sizes=''
  [ $# = 0 ] || sizes=$(wc -c "$@" 2>/dev/null)
  IFS=$sep
  # shellcheck disable=SC2086
  set -- $sizes
  unset IFS
  i=0
  while [ $i -lt $n ]; do
    i=$((i + 1))
    eval "id=\$id$i x=\$x$i run=\$run$i exit_line=\$end$i at_out=\$out$i at_err=\$err$i"
    printf '\n%s\n' "$mark"
    if [ $run = none ]; then
      say "error gone no sandbox at ${x%/x/*}"
      continue
    fi
    sized "$x/out" "$at_out" "${1-}" && shift
    more=$size
    sized "$x/err" "$at_err" "${1-}" && shift
    say "item $id $run $more $size $exit_line"
    [ "$more" = 0 ] || tail -c +$((at_out + 1)) "$x/out" | head -c "$more"
    [ "$size" = 0 ] || tail -c +$((at_err + 1)) "$x/err" | head -c "$size"
  done
  printf '\n%s\n' "$mark"
}
sized() { # file offset line: is this line of wc about the file? -> size: how much to send
  size=0
  line=${3#"${3%%[! ]*}"}
  [ "${line#* }" = "$1" ] || return 1
  size=$((${line%% *} - $2))
  [ $size -le "$limit" ] || size=$limit
  [ $size -ge 0 ] || size=0
}

case $do in
acquire | inspect | renew | keep | suspend | destroy | list | probe | survey) $do "$@" ;;
esac
