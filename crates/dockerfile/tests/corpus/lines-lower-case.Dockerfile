from alpine as build
workdir /src
copy . .
run make
from scratch
copy --from=build /src/out /
cmd ["/out"]
