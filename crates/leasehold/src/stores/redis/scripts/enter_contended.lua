now = micros()
local answer, wanted = ask(claim, ttl, ARGV[3], tail, ARGV[5], ARGV[6], meta)
return answer or {'held', take(claim, ttl, wanted)}
