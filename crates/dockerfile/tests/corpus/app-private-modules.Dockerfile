FROM golang:1.23-alpine AS build
RUN apk add --no-cache git openssh-client && mkdir -p -m 0700 ~/.ssh && ssh-keyscan git.example.test >> ~/.ssh/known_hosts
RUN git config --global url."ssh://git@git.example.test/".insteadOf "https://git.example.test/"
ENV GOPRIVATE=git.example.test/*
WORKDIR /src
COPY go.* .
RUN --mount=type=ssh --mount=type=secret,id=netrc,dst=/root/.netrc,required go mod download
RUN --mount=type=secret,id=token,env=API_TOKEN ./fetch-assets.sh
COPY . .
RUN go build -o /bin/app .
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /bin/app /app
ENTRYPOINT ["/app"]
