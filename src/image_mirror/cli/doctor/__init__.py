"""`image-mirror doctor`: asks both accounts, the webhook and the cluster, and says what is wrong and how to mend it.

`examination` is the whole: `china`, `abroad`, `credentials` and `cluster` say what is asked and who judges it, by
`asking`, which asks everything at once; `readings`, `key_readings` and `posting` make the calls; `agreement`, `keys`,
`project`, `table`, `triggers`, `functions`, `webhook` and `configuration` judge the answers; `commands` and
`applying` make the commands that remedies quote; `report` prints findings.
"""
