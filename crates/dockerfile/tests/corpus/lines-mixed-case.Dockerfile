FROM alpine
Run true
WORKDIR /x
env A=b
