FROM alpine AS parent
ONBUILD RUN <<EOF
one
two
EOF
ONBUILD COPY <<'A' <<B /dir/
$a
A
b
B
FROM parent
