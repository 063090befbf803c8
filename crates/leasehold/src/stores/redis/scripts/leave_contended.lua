local now = micros()
local stood = in_line(L, W, now, claim)
withdraw(L, W, claim)
if stood and found == 'gone' then found = 'withdrawn' end
local outcome = not value and hand(K, M, L, W, now, '')
return {found, outcome == 'again' and outcome or ''}
