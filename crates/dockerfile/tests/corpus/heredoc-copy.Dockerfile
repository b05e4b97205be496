FROM alpine
ARG name=world
COPY <<hello.txt /greetings/
hello $name ${name:-x} \$name "quotes" 'single $name'
hello.txt
COPY <<'raw.txt' <<"raw2.txt" <<plain.txt /many/
$name
raw.txt
${name}
raw2.txt
$name
plain.txt
COPY --chmod=755 --chown=1:2 <<-EOF file /mixed/
	#!/bin/sh
	echo $name
	EOF
ADD <<EOF /added
x
EOF
COPY <<EOF /empty
EOF
