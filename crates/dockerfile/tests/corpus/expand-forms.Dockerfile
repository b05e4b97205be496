FROM alpine
ARG set=value
ARG empty=
ENV a=$set b=${set} c=$unset d="$set" e='$set' f=\$set g="\$set" h=$set$set i=${set}x
ENV j=${unset:-dflt} k=${unset-dflt} l=${empty:-dflt} m=${empty-dflt} n=${set:-dflt}
ENV o=${unset:+alt} p=${unset+alt} q=${empty:+alt} r=${empty+alt} s=${set:+alt}
ENV t=${set:?must} u=${set?must} v=$1$@$?$$
ENV w=${unset:-${set:-x}} x=${set:+"${unset:-in ner}"} y=${unset:-$set/$set}
ENV z="${unset:-a b}" aa=${unset:-"a b"} bb=${unset:-'$set'}
