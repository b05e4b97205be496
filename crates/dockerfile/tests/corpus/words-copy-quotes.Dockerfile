FROM alpine
ENV name=file
COPY "file" '/quoted'
COPY $name /${name}2
COPY ["$name", "/json-$name"]
COPY fi\le /x
COPY ./dir/./inner /y/../z
COPY /file //twice
COPY dir/* dir/inn?r [f]ile /globs/
