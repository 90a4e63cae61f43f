-- Takes a host number: the one that this token has, the host's old one, or the one that was not used for longest.
-- ARGV: 3 the milliseconds of the lease, 4 for how long a number must not have been used, 5 the old number or 0, 6 its
--       token
-- Returns the number or 0, up to where counters were given out in its name, the least counter for all, and the time.

-- Counters have 38 bits. A number that has hardly any left is of no use: somebody else has written there.
local LAST_USEFUL = 2 ^ 38 - 2 ^ 32

local now = milliseconds()
local held = redis.call('MGET', unpack(of_all('lease')))

local function top(number)
    return tonumber(redis.call('GET', key('top', number)) or 0) or 0
end

local function take(number)
    redis.call('SET', key('lease', number), ARGV[2], 'PX', ARGV[3])
    redis.call('DEL', key('swept', number))
    note_use(number)
    return {number, top(number), tonumber(redis.call('GET', ARGV[1] .. ':floor') or 0) or 0, now}
end

for number = 1, HOSTS do
    if held[number] == ARGV[2] then
        return take(number)
    end
end

-- A host that listens to a number's channel is still there, or may be about to claim it again. With the same token it was
-- copied: a host that was killed listens no more.
local heard = redis.call('PUBSUB', 'NUMSUB', unpack(of_all('h')))

local old = tonumber(ARGV[5])
if old > 0 and top(old) <= LAST_USEFUL and (not held[old] or held[old] == ARGV[6] and heard[2 * old] == 0) then
    return take(old)
end

local numbers = {}
for number = 1, HOSTS do
    numbers[number] = number
end
local used = redis.call('HMGET', ARGV[1] .. ':used', unpack(numbers))
local best, best_used = 0, 0
for number = 1, HOSTS do
    local last = tonumber(used[number] or 0)
    -- The clock may have been set back.
    local is_quiet = math.abs(now - last) >= tonumber(ARGV[4])
    local is_free = not held[number] and is_quiet and heard[2 * number] == 0
    if is_free and (best == 0 or last < best_used) and top(number) <= LAST_USEFUL then
        best, best_used = number, last
    end
end
if best == 0 then
    return {0, 0, 0, now}
end
return take(best)
