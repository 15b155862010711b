#!/bin/sh
# A bot that does what BEHAVIOUR says, the same in every runtime. It logs as the bot SDK does.
beat() {
    number=0
    while :; do
        echo "INFO:     beat $number"
        number=$((number + 1))
        sleep 0.1 &
        wait $!
    done
}

echo "INFO:     command $*"
case "$BEHAVIOUR" in
    crash)
        echo "ERROR:    the pool has no such token"
        exit 3
        ;;
    unready)
        trap 'exit 0' TERM
        while :; do sleep 0.1; done
        ;;
esac
echo "SUCCESS:  Startup complete"
case "$BEHAVIOUR" in
    crash-later) # not before it was seen to run
        sleep 3
        echo "ERROR:    the price is gone"
        exit 4
        ;;
    finish) exit 0 ;;
    breaker) # as the bot SDK ends itself after tasks that failed
        echo "ERROR:    CircuitBreaker: too many failures"
        exit 0
        ;;
    suicide)
        sleep 0.3
        kill -KILL $$
        ;;
    deaf)
        trap '' TERM
        beat
        ;;
    hungry) # more than its limit, all of it in memory
        head -c 200000000 /dev/zero | tail > /dev/null
        exit $?
        ;;
    show)
        trap 'exit 0' TERM
        env
        id
        ls -d /root/.ape /var/run/docker.sock 2>/dev/null
        if (echo x > /root-is-writable) 2>/dev/null; then echo "root is writable"; else echo "root is read-only"; fi
        beat
        ;;
    remember)
        trap 'exit 0' TERM
        mkdir -p .silverback-sessions/one
        echo run >> .silverback-sessions/one/runs
        cat .silverback-sessions/one/runs
        beat
        ;;
    report) # as the bot SDK does that a cluster extended; the time is of TIME, since there is no `date` here
        trap 'exit 0' TERM
        [ -f "${PYTHONPATH%%:*}/sitecustomize.py" ] && echo "INFO:     extended"
        head="\"updated\": \"$TIME\", \"blocks\": true, \"processed\": 7, \"processed_at\": \"$TIME\", \"head\": 9, \"first\": 1"
        balance="{\"amount\": \"0.25\", \"symbol\": \"ETH\", \"time\": \"$TIME\"}"
        printf 'half a line \036{"beat": {%s, "under_way": 0, "balance": %s}}\n' "$head" "$balance"
        for price in 1 2 3; do
            printf '\036{"task": {"task_name": "watch", "execution_time": 0.5, "completed": "%s", "block_number": %s, "metrics": {"price": {"data": %s}}}}\n' \
                "$TIME" "$price" "$price"
        done
        printf '\036{"of": "nobody"}\n'
        beat
        ;;
    long)
        head -c 40000 /dev/zero | tr '\0' x
        echo
        ;;
    sign) # sends transactions that name this copy of the bot, to a node with unlocked accounts
        trap 'exit 0' TERM
        copy=$(cat /proc/sys/kernel/random/uuid | tr -d -)
        from=0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266
        while :; do
            body="{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"eth_sendTransaction\",\"params\":[{\"from\":\"$from\",\"to\":\"$from\",\"data\":\"0x$copy\"}]}"
            # wget keeps its side open until the answer has come: without that, a node may drop the request.
            timeout 5 wget -q -O - --header "Content-Type: application/json" --post-data "$body" "http://$CHAIN/" |
                grep -q '"result"' && echo "INFO:     signed as $copy"
            sleep 0.3 &
            wait $!
        done
        ;;
    *)
        trap 'echo "INFO:     goodbye"; exit 0' TERM
        beat
        ;;
esac
