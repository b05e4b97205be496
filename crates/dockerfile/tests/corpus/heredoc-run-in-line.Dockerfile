FROM alpine
RUN cat <<A > /a && cat <<B > /b
in a: $HOME
A
in b
B
RUN python3 <<'EOF' || true
print("$x")
EOF
RUN 3<<FD cat <&3
from three
FD
RUN grep x <<< "a here string"
RUN echo $((1<<2))
RUN echo "a <<EOF in quotes"
