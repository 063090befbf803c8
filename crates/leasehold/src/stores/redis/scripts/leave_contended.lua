if withdraw(L, W, claim) and found == 'gone' then found = 'withdrawn' end
local outcome = not value and hand(K, M, L, W, micros(), '')
return {found, outcome == 'again' and outcome or ''}
