-- Renews the lease of a number.
-- ARGV: 3 the milliseconds of the lease, 4 the number, 5 up to where this host may have given out counters, 6 the
--       highest such counter of any host that this host has heard of
-- Returns 1 if the number is this host's, 2 if Redis had lost it, 0 if the host counts as dead; and the highest counter
-- of any host.

local number = tonumber(ARGV[4])
local lease = key('lease', number)
local holder = redis.call('GET', lease)
local answer = 1
if holder == ARGV[2] then
    -- The first write is one that is allowed when there is no memory left.
    redis.call('PEXPIRE', lease, ARGV[3])
elseif holder or redis.call('EXISTS', key('swept', number)) == 1 then
    return {0, 0}
else
    answer = 2
    redis.call('SET', lease, ARGV[2], 'PX', ARGV[3])
    if tonumber(ARGV[5]) > (tonumber(redis.call('GET', key('top', number)) or 0) or 0) then
        -- The counters of other numbers are lost, too.
        raise(key('top', number), tonumber(ARGV[5]))
        raise(ARGV[1] .. ':floor', tonumber(ARGV[6]))
    end
end
note_use(number)
local highest = 0
for _, top in ipairs(redis.call('MGET', unpack(of_all('top')))) do
    highest = math.max(highest, tonumber(top or 0) or 0)
end
return {answer, highest}
