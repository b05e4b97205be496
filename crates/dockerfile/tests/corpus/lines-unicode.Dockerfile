FROM alpine
ENV greeting="grüß dich 世界 🚢" größe=3
LABEL "名前"="値"
WORKDIR /données
COPY <<ÉTÉ /saison
$greeting
ÉTÉ
RUN echo "ünï" && echo 🦀
