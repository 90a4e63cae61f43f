-- What the scripts of topics with memory have in common.
-- KEYS: 1 the topic's position, 2 its messages, 3 the run of the Redis process
-- ARGV: 1 an epoch that was never used, 2 for how many milliseconds messages are kept, 3 the run as the caller knows it,
--       4 for how many milliseconds the position is kept, 5 the channel, 6 what a payload begins with
-- An epoch is eight bytes, never a Lua number: those hold 53 bits.

local function text(number)
    return string.format('%.0f', number)
end

local function bytes(number)
    return struct.pack('<I8', number)
end

local function milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Another process may have started from an older state, so a position of an earlier run says nothing.
local function current_run()
    local run = redis.call('GET', KEYS[3])
    if not run then
        run = ARGV[3]
        redis.call('SET', KEYS[3], run)
    end
    return run
end

local function begin(run)
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'offset', '0', 'run', run)
    redis.call('DEL', KEYS[2])
    return ARGV[1], 0
end

local function position()
    local run = current_run()
    local epoch, offset, known_run = unpack(redis.call('HMGET', KEYS[1], 'epoch', 'offset', 'run'))
    offset = tonumber(offset or nil)
    if not epoch or not offset or known_run ~= run then
        return begin(run)
    end
    return epoch, offset
end

local function keep_position()
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
end

-- The id of a message in the stream is its offset and the time of its publication.
local function drop_aged(now)
    local oldest, count = now - ARGV[2], 1
    while true do
        local found = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', count)
        if #found == 0 then
            return
        end
        for index, message in ipairs(found) do
            local offset, at = string.match(message[1], '(%d+)-(%d+)')
            if tonumber(at) >= oldest then
                if index > 1 then
                    redis.call('XTRIM', KEYS[2], 'MINID', message[1])
                end
                return
            end
            if index == #found then
                redis.call('XTRIM', KEYS[2], 'MINID', text(offset + 1))
            end
        end
        count = 16
    end
end
