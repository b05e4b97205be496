FROM alpine
COPY file /
COPY file .
COPY file ./
COPY file rel
WORKDIR /work
COPY file rel/
COPY file ../up
COPY file dir /many/
COPY dir/ /dir
COPY dir /dir/
COPY . .
COPY . /
COPY file /a/b/../c/
