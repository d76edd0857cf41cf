# What the user's own agents used and what is left of their limits; with made-up data if no client has written
# logs. The log of it is in a directory of its own, which goes again.
TOKENOPS_HOME=$(mktemp -d) || exit 2
export TOKENOPS_HOME
trap 'rm -rf "$TOKENOPS_HOME"' EXIT
log=$TOKENOPS_HOME
span=3650d
if tok-sync --json | grep -q '"events":[1-9]'; then
    echo "What your agents used, from the logs on this machine:"
    echo
else
    echo "No agent on this machine has written logs yet. This is made-up data (tok-init --demo):"
    echo
    tok-init --demo > /dev/null || exit 2
    log=$TOKENOPS_HOME/demo
    span=30d
fi
TOKENOPS_HOME=$log tok-cost --log --since $span --by project --table
echo
TOKENOPS_HOME=$log tok-budget --table 2> /dev/null
echo
echo "Next:"
echo "    pipx install .   # install the commands (or: uv tool install .)"
echo "    tok-init         # set it up: plan, schedule, status line; --undo takes it back"
echo "    tok-init --demo  # made-up data to try it all: tok-dash, tok-score, tok-coach waste"
