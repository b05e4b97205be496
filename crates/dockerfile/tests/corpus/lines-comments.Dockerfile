# A comment first: the next line is no directive.
# escape=`
FROM alpine AS one
  # indented comment
RUN echo one \
  # inside, dropped
# at the margin, dropped
  && echo two # not a comment
RUN echo '# neither' \
	# after a tab
  end
ENV a=b#c d="#e"
