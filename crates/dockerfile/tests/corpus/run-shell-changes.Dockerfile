FROM alpine
RUN a
CMD a
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN b | c
CMD b
ENTRYPOINT b
HEALTHCHECK CMD b
RUN ["exec"]
FROM scratch
SHELL ["powershell", "-command"]
RUN Write-Host hello
