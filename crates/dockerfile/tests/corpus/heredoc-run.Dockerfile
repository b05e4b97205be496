FROM alpine
RUN <<EOF
apk add curl
echo $HOME "quoted"
EOF
RUN <<'EOF'
echo $HOME
EOF
RUN <<-EOF
	tabs are stripped
		one of two
	EOF
RUN << SPACED
x
SPACED
