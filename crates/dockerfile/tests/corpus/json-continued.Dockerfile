FROM alpine
CMD ["one", \
     # in between
     "two", \
     "three"]
ENTRYPOINT [ \
  "sh" \
]
