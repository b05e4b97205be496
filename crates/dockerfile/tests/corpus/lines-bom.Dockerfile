# escape=`
FROM alpine
RUN dir `
  C:\
