FROM alpine
ARG p=/usr/local/lib/libfoo.so.1.2
ENV a=${p#*/} b=${p##*/} c=${p%.*} d=${p%%.*} e=${p#/usr} f=${p%2} g=${p#nothing}
ENV h=${p/l/L} i=${p//l/L} j=${p/lib/} k=${p//\//_} l=${p/l*o/X} m=${p//[a-z]/x} n=${p//?/.}
ENV o=${p%"${p##*/}"} q=${p#\*} r="${p##*.}"
