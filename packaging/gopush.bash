# bash completion for gopush

_gopush() {
    local cur prev words cword
    _init_completion -n : || return

    local command=${words[1]} options="--help"
    if ((cword == 1)); then
        COMPREPLY=($(compgen -W "sub push history bench nodes weight drain undrain close key token delete presence backup hbase migrate check ready ini convert --help --version" -- "$cur"))
        return
    fi
    case $command in
        sub) options+=" --web --cacert --insecure --comet-tls --token --mid --heartbeat --count --once" ;;
        push) options+=" --admin --expire --id --wait --mid --api-key-file --cacert --insecure" ;;
        history) options+=" --web --cacert --insecure --token --after" ;;
        bench) options+=" --web --admin --api-key-file --cacert --insecure --comet-tls --auth --keys --subscribers --seconds --size --rate --pushers" ;;
        nodes) options+=" --json --admin --api-key-file --cacert --insecure" ;;
        weight | drain | undrain | close | delete | presence | backup) options+=" --admin --api-key-file --cacert --insecure" ;;
        key) options+=" --limit --scope --prefix --admin --api-key-file --cacert --insecure" ;;
        token) options+=" --life --admin --api-key-file --cacert --insecure" ;;
        hbase) options+=" --thrift --table --regions" ;;
        migrate) options+=" --from --to --before" ;;
        check) options+=" --config --role" ;;
        ready) options+=" --config --role --wait" ;;
        convert) options+=" --role" ;;
    esac
    case $command:$prev in
        check:--config | check:-c | ready:--config | ready:-c)
            _filedir ini
            return
            ;;
        *:--api-key-file | *:--cacert)
            _filedir
            return
            ;;
        push:--mid | bench:--auth | *:--insecure | *:--json) ;;
        *:--web | *:--admin | *:--token | *:--id | *:--mid | *:--expire | *:--wait | *:--heartbeat | *:--count | *:--after | *:--life | *:--limit | *:--prefix | bench:--* | hbase:--* | migrate:--*)
            return
            ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
    elif [[ $prev == --scope ]]; then
        COMPREPLY=($(compgen -W "push admin" -- "$cur"))
    elif [[ $command == token && $prev == token ]]; then
        COMPREPLY=($(compgen -W "create list revoke" -- "$cur"))
    elif [[ $command == hbase ]]; then
        COMPREPLY=($(compgen -W "create" -- "$cur"))
    elif [[ $prev == ini || $prev == --role ]]; then
        COMPREPLY=($(compgen -W "comet message web gopush" -- "$cur"))
    fi
} && complete -F _gopush gopush
