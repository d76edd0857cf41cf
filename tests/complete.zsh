# What zsh would complete: complete.zsh SCRIPT LINE... prints, for each line, `--` and one candidate per line. SCRIPT is
# sourced; a directory is one of those in which the completion system looks for functions by itself. It types
# into a second zsh and presses <Tab>; what the completion system is given there is written down beside being used.
zmodload zsh/zpty
typeset -i asked=0
[[ -d $1 ]] && before="fpath=($1 \$fpath)" after=: || before=: after="source $1"
zpty -b typed zsh -f -i
zpty -w typed "PROMPT=; stty -echo; $before; autoload -Uz compinit; compinit -u -D; $after"
zpty -w typed 'compadd() { local -a found; builtin compadd -A found "$@"; print -rl -- $found >> candidates; builtin compadd "$@" }'
zpty -w typed 'zstyle ":completion:*" completer _complete; setopt no_beep'
zpty -w typed 'answered() { print >> answered; BUFFER= }; zle -N answered; bindkey "^Xa" answered; print READY >> answered'
wait_for() { repeat 400; do [[ -e answered ]] && break; sleep 0.025; done; rm -f answered }
wait_for
for line in "${@[2,-1]}"; do
    : > candidates
    zpty -w -n typed "$line"$'\t\x18a'
    wait_for
    print -- --
    sort -u candidates | sed '/^$/d; s,/$,,'
done
zpty -d typed
rm -f candidates
