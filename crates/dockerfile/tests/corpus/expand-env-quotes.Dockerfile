FROM alpine
ENV a=b\ c d="e f" g='h "i" j' k="l 'm' n" o="p\"q" r='s\t' u=v\\w x="" y='' z=
ENV one two   three  four
ENV five "six" 'seven'
ENV eight=nine\
ten eleven=twelve
ENV dotted.name=1 dashed-name=2 3digit=4
LABEL multi="line one \
line two" single=x\
y
