# bash completion for gopush

_gopush() {
    local cur prev words cword
    _init_completion -n : || return

    local command=${words[1]} options="--help"
    if ((cword == 1)); then
        COMPREPLY=($(compgen -W "sub push history bench key nodes weight drain undrain close hbase check ini --help --version" -- "$cur"))
        return
    fi
    case $command in
        sub) options+=" --web --token --mid --heartbeat --count --once" ;;
        push) options+=" --admin --expire --id --wait --mid --api-key-file" ;;
        history) options+=" --web --token --after" ;;
        bench) options+=" --web --admin --api-key-file --auth --keys --subscribers --seconds --size --rate --pushers" ;;
        nodes | weight | drain | undrain | close) options+=" --admin --api-key-file" ;;
        hbase) options+=" --thrift --table --regions" ;;
        check) options+=" --config --role" ;;
    esac
    case $command:$prev in
        check:--config | check:-c)
            _filedir ini
            return
            ;;
        *:--api-key-file)
            _filedir
            return
            ;;
        push:--mid | bench:--auth) ;;
        *:--web | *:--admin | *:--token | *:--id | *:--mid | *:--expire | *:--wait | *:--heartbeat | *:--count | *:--after | bench:--* | hbase:--*)
            return
            ;;
    esac
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
    elif [[ $command == hbase ]]; then
        COMPREPLY=($(compgen -W "create" -- "$cur"))
    elif [[ $prev == ini || $prev == --role ]]; then
        COMPREPLY=($(compgen -W "comet message web gopush" -- "$cur"))
    fi
} && complete -F _gopush gopush
