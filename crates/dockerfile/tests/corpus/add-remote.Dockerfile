FROM alpine
ADD https://files.example.test/path/name.tar.gz?x=1#frag /dl/
ADD --unpack=true https://files.example.test/name.tar.gz /un/
ADD --unpack=false file /packed
ADD --keep-git-dir=true https://git.example.test/r.git#main:sub/dir /git
ADD https://git.example.test/r.git?branch=dev&subdir=docs /q
ADD --checksum=c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00 https://git.example.test/r.git /c
ADD git@git.example.test:team/r.git#v1 /ssh
ADD ssh://git@git.example.test/team/r.git /ssh2
ADD --chown=5 --chmod=600 file https://files.example.test/one /both/
ADD --link https://files.example.test/two /
