FROM alpine
ENV a="<<EOF" b=<<EOF
LABEL x=<<EOF
CMD cat <<EOF
ENTRYPOINT ["<<EOF"]
