# The verbs of the supervisor; the second half of supervisor.sh.

start() { # id fence spec_bytes cmd_bytes all_bytes cgroup|-; stdin: spec, cmd, stdin in one
  fence "$2"
  if mkdir "$x" 2>/dev/null; then #@ claim
    cat >"$x/in" #@ input
    all=$(wc -c <"$x/in")
    [ $((all)) = "$5" ] || fail "io the command arrived incomplete"
    { dd bs="$3" count=1 >"$x/spec" && dd bs="$4" count=1 >"$x/cmd" && cat >"$x/stdin"; } <"$x/in" 2>/dev/null || fail "io cannot store the command" #@ parts
    rm -f "$x/in" #@ whole
    if [ "$6" != - ]; then say "$6" >"$x/cgroup"; fi
    printf '%s\n' "$S" >"$x/sh" || fail "io cannot store the supervisor" #@ script
    # The first makes the second a group leader, and that one forks and leaves: detached without
    # "&", which would make INT ignored for ever.
    setsid setsid /bin/sh "$x/sh" supervise "$ctl" "$id" </dev/null >/dev/null 2>&1 || fail "io cannot start the supervisor" #@ spawn
    say "ok started"
    return
  fi
  [ -d "$x" ] || { sandbox; fail "io cannot create $x"; }
  owner
  case $go in by-supervisor | '') say "ok adopted" ;; *) say "ok cancelled" ;; esac
}

# -> run: exited, starting, running, unclear, unknown, elsewhere
look() {
  run=unknown
  [ -d "$x" ] || return 0
  run=exited
  ! ended || return 0
  run=unclear go=''
  [ ! -h "$x/go" ] || owner
  case $go in by-supervisor | '') ;; *) return 0 ;; esac
  if identity "$x/super"; then
    alive
    case $? in
    0) [ -n "$go" ] && run=running || run=starting ;;
    1) ! ended || run=exited ;;
    2) run=elsewhere ;;
    esac
  elif [ -z "$go" ]; then
    run=starting
  fi
}
chunk() { # file offset limit -> name/size: a file holding the bytes; printed by the caller
  size=0
  [ ! -f "$1" ] || size=$(wc -c <"$1")
  size=$((size - $2))
  [ $size -le "$3" ] || size=$3
  [ $size -ge 0 ] || size=0
}
poll() { # limit; stdin: lines "id out_offset err_offset"
  sandbox
  while read -r id at_out at_err; do
    x=$ctl/x/$id
    look
    line=-
    [ $run != exited ] || line=$exit_line
    chunk "$x/out" "$at_out" "$1"
    n=$size
    chunk "$x/err" "$at_err" "$1"
    say "item $id $run $n $size $line"
    [ "$n" = 0 ] || tail -c +$((at_out + 1)) "$x/out" | head -c "$n"
    [ "$size" = 0 ] || tail -c +$((at_err + 1)) "$x/err" | head -c "$size"
  done
}
fetch() { # id out|err offset limit
  sandbox
  claimed
  eof=0
  ! ended || eof=1
  chunk "$x/$2" "$3" "$4"
  [ "$size" -lt "$4" ] || eof=0
  say "ok $eof $size"
  [ "$size" = 0 ] || tail -c +$(($3 + 1)) "$x/$2" | head -c "$size"
}
settle() { # id fence
  fence "$2"
  mkdir "$x" 2>/dev/null #@ claim
  ! ended || { say "ok exited $exit_line"; return; }
  ! tombstone settle || never
  identity "$x/super" || fail "io the supervisor's record is missing"
  alive
  case $? in
  0) if ended; then say "ok exited $exit_line"; else say "ok running"; fi ;;
  1) lost ;;
  2) fail "elsewhere the supervisor runs in another pid namespace" ;;
  esac
}
cancel() { # id fence grace first(0|1) force(0|1); grace in 1/100 s
  fence "$2"
  mkdir "$x" 2>/dev/null #@ claim
  ! ended || { say "ok exited $exit_line"; return; }
  ! tombstone cancel || never
  identity "$x/super" || fail "io the supervisor's record is missing"
  alive
  case $? in
  1) lost ;;
  2) fail "elsewhere the supervisor runs in another pid namespace" ;;
  esac
  now
  ln -s "cancelled@$now@$3" "$x/end" 2>/dev/null #@ end
  end=$(readlink "$x/end") || end=cancelled@$now@$3
  grace=${end##*@} since=${end#*@} since=${since%@*}
  [ "$4" = 0 ] || { signal TERM "$x/child"; signal CONT "$x/child"; }
  round=$((now + 100))
  while [ $now -lt $round ]; do
    ! ended || { say "ok exited $exit_line"; return; }
    if [ "$5" = 1 ] || [ $now -ge $((since + grace)) ]; then reap "$x/child" || fail "busy the tree does not die"; fi
    # The tree is gone and the supervisor says nothing: it is stopped or stuck.
    if [ $now -ge $((since + grace + 500)) ]; then reap "$x/super"; lost; fi
    sleep 0.03
    now
  done
  say "ok ending"
}
forget() { # id fence
  fence "$2"
  claimed
  look
  case $run in starting | running | elsewhere) fail "busy the execution has not ended" ;; esac
  rm -f "$x/out" "$x/err" "$x/in" "$x/cmd" "$x/stdin" #@ forget
  say "ok"
}
finish_all() { # fence: end every execution of this sandbox, for good
  fence "$1"
  set +f
  set -- "$ctl/x/"*
  set -f
  for x; do
    [ -d "$x" ] || continue
    ! ended || continue
    tombstone destroy
    reap "$x/child" && reap "$x/super" && reap "$x/child" || fail "busy a tree does not die"
  done
  say "ok"
}
seize() { # fence
  fence "$1"
  set +f
  for old in "$ctl/fence/"*; do
    # Sorted: what comes after ours is newer and not ours to remove.
    [ "${old##*/}" != "$top" ] || break
    rm -f "$old" #@ prune
  done
  say "ok"
}


# ---- files -------------------------------------------------------------------------------

# Walk from root $1 down the directories of the relative path $2; leaves `leaf`, and us in its
# directory. Each step is checked after it was taken, so a symbolic link cannot lead outside.
enter() { # root path make(0|1)
  cd -P -- "$1" 2>/dev/null || fail "gone no directory $1"
  top=$(pwd -P) rest=$2 leaf=.
  while [ -n "$rest" ]; do
    case $rest in
    */*) part=${rest%%/*} rest=${rest#*/} ;;
    *) leaf=$rest && break ;;
    esac
    case $part in '' | .) continue ;; ..) fail "path leaves the root" ;; esac
    [ "$3" = 0 ] || [ -d "./$part" ] || (umask 022; mkdir "./$part") #@ parent
    cd -P -- "./$part" 2>/dev/null || fail "path no directory $part"
    case $(pwd -P)/ in "${top%/}"/*) ;; *) fail "path leaves the root" ;; esac
  done
  [ "$leaf" != .. ] || fail "path leaves the root"
}
store() { # spool: append stdin
  sandbox
  cat >>"$ctl/$1" || fail "io cannot store" #@ spool
  say "ok"
}
drop() { # spool
  rm -f "$ctl/$1" #@ drop
  say "ok"
}
place() { # fence spool root path mode: the spool becomes the file, at once
  fence "$1"
  enter "$3" "$4" 1
  [ ! -d "./$leaf" ] || [ -h "./$leaf" ] || fail "path is a directory"
  cp "$ctl/$2" "./.leasehold.$2" && chmod "$5" "./.leasehold.$2" || fail "io cannot write" #@ copy
  # A copy may take long: who was overtaken meanwhile shows nothing.
  stale=$(fence "$1")
  [ -z "$stale" ] || { rm -f "./.leasehold.$2"; say "$stale"; return; } #@ stale
  mv -f "./.leasehold.$2" "./$leaf" || fail "io cannot write" #@ place
  drop "$2"
}
unpack() { # fence spool root path: the spool is a tar, its members were checked by the caller
  fence "$1"
  enter "$3" "${4%/}/." 1
  umask 022
  said=$(tar -xpof "$ctl/$2" 2>&1) || misfit #@ unpack
  drop "$2"
}
misfit() { # why tar failed: what is there is in the way, which trying again does not change
  case $said in
  *"Is a directory"* | *"Not a directory"* | *"File exists"* | *"Directory not empty"*)
    fail "path the tree does not fit what is there" ;;
  esac
  fail "io cannot unpack"
}
pack() { # spool root path
  sandbox
  enter "$2" "${3%/}/." 0
  tar -cf "$ctl/$1" . 2>/dev/null || fail "io cannot pack" #@ pack
  say "ok"
}
slice() { # root path offset limit -> "ok size inode"
  enter "$1" "$2" 0
  [ -f "./$leaf" ] || fail "path no file $leaf"
  # Opened once: a file that is replaced meanwhile is neither measured nor read by halves.
  opened "$3" "$4" 3<"./$leaf" || fail "path cannot read $leaf"
}
opened() { # offset limit; the file is fd 3
  case $(readlink /proc/self/fd/3) in "${top%/}"/*) ;; *) fail "path leaves the root" ;; esac
  chunk /proc/self/fd/3 "$1" "$2"
  inode=$(ls -iL /proc/self/fd/3) || fail "io cannot read"
  inode=${inode#"${inode%%[! ]*}"}
  say "ok $size ${inode%% *}"
  [ "$size" = 0 ] || tail -c +$(($1 + 1)) /proc/self/fd/3 | head -c "$size"
}

shift 2
case $verb in start | read | settle | cancel | forget | supervise | child) id=$1 x=$ctl/x/$1 ;; esac
case $verb in
init)
  mkdir -p "$ctl/x" "$ctl/fence" || fail "io cannot create $ctl" #@ init
  seize "$@"
  ;;
seize | start | poll | settle | cancel | forget | supervise | child) $verb "$@" ;;
store | drop | place | unpack | pack | slice) $verb "$@" ;;
read) fetch "$@" ;;
end) finish_all "$@" ;;
load) ;; # for a provider's own script, which goes on with these functions
*) fail "io unknown verb $verb" ;;
esac
