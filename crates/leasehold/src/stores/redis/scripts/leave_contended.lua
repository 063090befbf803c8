now = micros()
look(type(there) == 'table' or there)
local entry = standing(claim)
if entry then found = entry.fence > 0 and 'released' or 'withdrawn' end
drop(claim, entry)
return {found, settle('') and 'again' or ''}
