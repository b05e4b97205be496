FROM alpine AS base
# check=skip=JSONArgsRecommended
CMD echo one
# check=skip=WorkdirRelativePath,LegacyKeyValueFormat
WORKDIR rel
ENV a b
ENV c d
