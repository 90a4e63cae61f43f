-- Returns the numbers whose hosts are gone but have left members.

local gone = {}
for number, holder in ipairs(redis.call('MGET', unpack(of_all('lease')))) do
    if not holder and redis.call('EXISTS', key('i', number)) == 1 then
        gone[#gone + 1] = number
    end
end
return gone
