-- Gives a number back.
-- ARGV: 3 the number, 4 how many members are removed at once

local lease = key('lease', ARGV[3])
if redis.call('GET', lease) ~= ARGV[2] then
    return 0
end
remove_members(tonumber(ARGV[3]), tonumber(ARGV[4]))
redis.call('DEL', lease)
note_use(ARGV[3])
return 1
